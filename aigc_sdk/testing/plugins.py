"""The rules for a plugin: an entry point of the group `aigc_sdk`."""

import os
import subprocess
import sys

from aigc_sdk.registry import Plugin
from aigc_sdk.testing.checks import Check, require

# Listing what is installed imports none of these.
HEAVY = (
    "torch", "onnxruntime", "onnx", "pandas", "scipy", "pydantic", "PIL", "matplotlib", "sklearn", "lightning_fabric",
    "tensorflow", "jax", "transformers",
)  # fmt: skip

_LIST = f"""
import sys, aigc_sdk
aigc_sdk.plugins()
print(*sorted(sys.modules.keys() & {set(HEAVY)!r}))
"""


def check_plugin_is_loaded(plugin: Plugin) -> None:
    """It can be imported, its hooks are spelt, marked and signed as in hookspecs.py, and its specs are right."""
    require(plugin.state == "loaded", "the state loaded", f"{plugin.state}: {plugin.reason}")


def check_listing_is_light_and_silent(plugin: Plugin) -> None:
    """Finding out what it offers imports nothing heavy and prints nothing."""
    environment = {**os.environ, "AIGC_SDK_PLUGINS": plugin.name, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(  # noqa: S603 - this Python, our own lines
        [sys.executable, "-c", _LIST], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    require(done.returncode == 0, "a process that lists it to end well", f"exit code {done.returncode}")
    require(not done.stderr, "nothing printed", repr(done.stderr[:200]))
    require(not done.stdout.split(), "no heavy imports", done.stdout.strip())


def check_what_it_offers_is_there(plugin: Plugin) -> None:
    """Every target can be imported and is of its kind; every model file is there and is the registered one."""
    problems = [f"{what}: {error}" for what, error in plugin.check().items()]
    require(not problems, "all that it registered", "; ".join(problems))


def check_names_are_its_own(plugin: Plugin) -> None:
    """No other plugin here offers what it offers: a built-in would win, and of two strangers neither."""
    require(not plugin.notes, "names of its own", "; ".join(plugin.notes))


PLUGIN_CHECKS: tuple[Check, ...] = (
    check_plugin_is_loaded,
    check_listing_is_light_and_silent,
    check_what_it_offers_is_there,
    check_names_are_its_own,
)
