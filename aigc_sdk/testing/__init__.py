"""The contract as named checks, for families, models and plugins: run them in your own tests.

    from aigc_sdk.testing import check_family, check_model, check_plugin

    def test_my_plugin():
        check_plugin("my-distribution")
        check_family("my-family")
        check_model("my-model")

Each check is a function whose docstring is the rule; `CHECKS` lists them.
"""

import os
from collections.abc import Mapping
from typing import Any

from aigc_sdk.errors import UnknownName
from aigc_sdk.generation import model_file, open_any
from aigc_sdk.generator import Generator
from aigc_sdk.registry import Plugin, default_registry
from aigc_sdk.testing.checks import Check, run_checks
from aigc_sdk.testing.families import FAMILY_CHECKS, FamilyCase
from aigc_sdk.testing.feeds import example_feeds, feeds_of
from aigc_sdk.testing.measures import MEASURE_CHECKS, MeasureCase
from aigc_sdk.testing.models import FILE_CHECKS, GENERATOR_CHECKS, ModelCase
from aigc_sdk.testing.plugins import PLUGIN_CHECKS

__all__ = ["CHECKS", "check_family", "check_model", "check_plugin", "example_feeds", "feeds_of"]

# All checks, by what they check, in their order.
CHECKS: Mapping[str, tuple[Check, ...]] = {
    "model": (*FILE_CHECKS, *GENERATOR_CHECKS),
    "measure": MEASURE_CHECKS,
    "family": FAMILY_CHECKS,
    "plugin": PLUGIN_CHECKS,
}


def model_case(model: str | os.PathLike[str], task: str | None = None) -> ModelCase:
    """Load a model for its checks; raises as `aigc_sdk.load` does."""
    from aigc_sdk.runtime import OnnxGenerator

    generator = open_any(model, task=task, compares=False)
    assert isinstance(generator, Generator)
    return ModelCase(generator, model_file(model, task=task) if isinstance(generator, OnnxGenerator) else None)


def measure_case(
    measure: str | os.PathLike[str], task: str | None = None, shape: tuple[int, ...] | None = None
) -> MeasureCase:
    """Open a measure's file for its checks; raises as `aigc_sdk.measure` does."""
    from aigc_sdk.runtime import OnnxMeasure

    opened = open_any(measure, task=task, shape=shape, compares=False)
    assert isinstance(opened, OnnxMeasure)
    return MeasureCase(opened, model_file(measure, task=task, shape=shape))


def check_model(
    model: str | os.PathLike[str], *, task: str | None = None, shape: tuple[int, ...] | None = None
) -> list[str]:
    """Check a file of either kind, a ready-made model or measure, or a generator of a plugin.

    Returns the names of what was checked.

    Args:
        model: what `aigc_sdk.load` takes, or a measure.
        task: which task of it; without it, its first.
        shape: (height, width, channels) of the contents, for a measure that is made for them.

    Raises:
        ContractBroken: names the check, its rule, and what was expected and found.

    Example:
        >>> from aigc_sdk.testing import check_model
        >>> check_model("digits-vae")[-1]
        'check_values_out_of_range_are_refused'
    """
    if not isinstance(opened := open_any(model, task=task, shape=shape, compares=False), Generator):
        what = f"The measure {opened.card.name}:{opened.card.task}"
        return run_checks(what, MEASURE_CHECKS, measure_case(model, task, shape))
    case = model_case(model, task)
    checks = CHECKS["model"] if case.path else GENERATOR_CHECKS
    return run_checks(f"The model {case.generator.card.name}:{case.generator.card.task}", checks, case)


def check_family(
    family: str, *, config: Mapping[str, Any] | None = None, data: tuple[Any, Any] | None = None
) -> list[str]:
    """Check a family by training it for some steps; return the names of what was checked. Takes about a minute.

    Args:
        family: its name.
        config: its options; small ones make it faster.
        data: images uint8 (n, height, width, channels), or texts, and labels int64 (n,), each class among them, or
            pieces of music; without it, 48 images of 16 x 16 pixels, or short texts, in 3 classes, or short pieces.

    Raises:
        ContractBroken: names the check, its rule, and what was expected and found.
        UnknownName: there is no such family, or no such option.

    Example:
        >>> from aigc_sdk.testing import check_family
        >>> check_family("vea")
        Traceback (most recent call last):
        aigc_sdk.errors.UnknownName: There is no family 'vea'. Did you mean 'vae'? There are: ...
    """
    spec = default_registry().find("family", family)
    case = FamilyCase(spec, config or {}, data, asked=family)
    return run_checks(f"The family {family}", FAMILY_CHECKS, case)


def find_plugins(name: str) -> list[Plugin]:
    """Return the plugins of a distribution, or of an entry point's name."""
    plugins = default_registry().plugins
    found = [plugin for plugin in plugins if name in (plugin.distribution, plugin.name)]
    if not found:
        raise UnknownName.of("plugin", name, {plugin.distribution for plugin in plugins})
    return found


def check_plugin(name: str) -> list[str]:
    """Check the plugins of a distribution; return the names of what was checked.

    Args:
        name: of the distribution, or of one entry point.

    Raises:
        ContractBroken: names the check, its rule, and what was expected and found.
        UnknownName: no such plugin is installed.

    Example:
        >>> from aigc_sdk.testing import check_plugin
        >>> check_plugin("zoo")[0]
        'check_plugin_is_loaded'
    """
    passed: list[str] = []
    for plugin in find_plugins(name):
        passed = run_checks(f"The plugin {plugin.name} of {plugin.distribution}", PLUGIN_CHECKS, plugin)
    return passed
