"""The rules for a family. Torch is imported where it is used: listing the checks needs none."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.card import DataSummary, ModelCard, checked
from aigc_sdk.modality import find_modality
from aigc_sdk.specs import FamilySpec, sdk_version
from aigc_sdk.testing.checks import Check, require, run_checks
from aigc_sdk.testing.measures import MEASURE_CHECKS, MeasureCase
from aigc_sdk.testing.models import FILE_CHECKS, GENERATOR_CHECKS, ModelCase

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from aigc_sdk.training import Batch, Family, FamilyConfig, Losses

Array = NDArray[Any]

# Called after every backward pass with the phase, the losses and the phase's optimizer.
Look = Callable[[str, "Losses", "Optimizer"], None]

STEPS = 3


def example_data(modality: str, n: int = 48, size: int = 16, classes: int = 3) -> tuple[Any, Array]:
    """Return n different small items of a modality, and labels int64 (n,) by how they were made.

    Args:
        modality: its name.
        n: how many.
        size: about how long or wide an item is.
        classes: of the labels.
    """
    return find_modality(modality).examples.data(n, size, classes)


@dataclass(frozen=True)
class FamilyCase:
    """A family to check.

    Attributes:
        spec: of the family.
        config: its options, beyond the defaults.
        data: items and labels int64 (n,), as `aigc_sdk.train` takes them; examples of its modality without it.
        run_folder: a finished run of the family, whose files are checked instead of those of a run made for it.
        asked: the name that it was asked for by, its own without it.
    """

    spec: FamilySpec
    config: Mapping[str, Any] = field(default_factory=dict)
    data: tuple[Any, Array] | None = None
    run_folder: Path | None = None
    asked: str = ""

    @cached_property
    def family_class(self) -> type[Family]:
        """The class behind the spec."""
        target: type[Family] = self.spec.resolve()
        return target

    @cached_property
    def options(self) -> FamilyConfig:
        """The options, checked."""
        from aigc_sdk.training.family import parse_config

        return parse_config(self.spec.name, self.family_class.Config, self.config)

    @cached_property
    def items(self) -> tuple[Any, Array]:
        """The data."""
        return example_data(self.family_class.modality) if self.data is None else self.data

    @property
    def source(self) -> Any:
        """The data as `aigc_sdk.train` takes it: without labels where such items have none."""
        return self.items if find_modality(self.family_class.modality).has_labels else self.items[0]

    @cached_property
    def dataset(self) -> Any:
        """The data, read."""
        modality = find_modality(self.family_class.modality)
        return modality.data.read(self.source, self.options.model_dump(), trains=True)

    @cached_property
    def batch(self) -> Batch:
        """All of the data as one batch."""
        import torch

        from aigc_sdk.training.batches import batches

        n = self.dataset.n
        return next(
            batches(self.dataset, np.arange(n), n, torch.device("cpu"), self.family_class.modality, self.options)
        )

    def build(self) -> Family:
        """Make the family for the data; its weights are drawn from torch's generator."""
        family = self.family_class(self.options)
        family.build(self.dataset.spec(np.arange(self.dataset.n)))
        return family

    def train(self, seed: int = 0, look: Look = lambda *_: None) -> Family:
        """Return the family after a few steps, as the loop makes them; all that is random comes from the seed."""
        import torch

        with torch.random.fork_rng():
            torch.manual_seed(seed)
            family, carry = self.build(), None
            optimizers = family.optimizers()
            family.train()
            for step in range(STEPS):
                for phase in family.phases(step):
                    losses, carry = family.training_step(self.batch, phase, step, carry)
                    optimizers[phase].zero_grad()
                    losses.total.backward()  # type: ignore[no-untyped-call]  # torch has no types here
                    look(phase, losses, optimizers[phase])
                    optimizers[phase].step()
            return family.eval()

    @cached_property
    def trained(self) -> Family:
        """The family after a few steps; shared, so leave it as it is."""
        return self.train()

    def model(self, task: str, family: Family | None = None) -> ModelCase:
        """Return a task of the family as a model in eager torch."""
        from aigc_sdk.training.eager import EagerGenerator

        family = family or self.trained
        card = checked(
            ModelCard,
            {
                **dict.fromkeys(("version", "license", "intended_use", "created"), "unspecified"),
                "name": "checked",
                "sdk_version": sdk_version(),
                "family": self.spec.name,
                "task": task,
                "modality": family.modality,
                "controls": tuple(family.controls(task)),
                "output": family.output(task),
                "state": family.state(task),
                "config": {},
                "data": DataSummary(name="stripes", fingerprint="0" * 64, n=self.dataset.n, split={}),
                "graph_sha256": "0" * 64,
            },
        )
        return ModelCase(EagerGenerator(family.sampler(task), card), tolerance=1)


def check_declarations(case: FamilyCase) -> None:
    """The target is a Family with options of its own and at least one task; the spec names its modalities."""
    from aigc_sdk.training import FamilyConfig

    family, modalities = case.family_class, case.spec.modalities
    require(issubclass(family.Config, FamilyConfig), "Config to be a FamilyConfig", family.Config)
    tasks = family.tasks
    distinct = isinstance(tasks, tuple) and len(tasks) == len(set(tasks)) > 0
    require(distinct, "tasks to be a tuple of distinct names", tasks)
    named = isinstance(modalities, tuple) and family.modality in modalities
    require(named, f"the modality {family.modality!r} in the spec", modalities)


def check_options_are_described(case: FamilyCase) -> None:
    """Every option has a description and a default, none may be added or changed, and all survive JSON."""
    config = case.family_class.Config
    bare = [name for name, option in config.model_fields.items() if not option.description or option.is_required()]
    require(not bare, "a description and a default for every option", f"none for {', '.join(bare)}")
    kept = {key: config.model_config.get(key) for key in ("frozen", "extra")}
    require(kept == {"frozen": True, "extra": "forbid"}, "frozen options that forbid others", kept)
    again = config.model_validate_json(case.options.model_dump_json())
    require(again == case.options, "the same options after JSON", again)


def check_every_phase_has_an_optimizer(case: FamilyCase) -> None:
    """Every step has at least one phase, and each phase an optimizer of its name."""
    family = case.build()
    optimizers = family.optimizers()
    for step in range(10):
        phases = family.phases(step)
        require(len(phases) > 0, f"at least one phase in step {step}", phases)
        require(set(phases) <= set(optimizers), f"optimizers for {phases}", sorted(optimizers))


def check_training_steps_are_finite(case: FamilyCase) -> None:
    """Losses and their parts are finite scalars, and each phase gives its optimizer finite gradients to work on."""

    def look(phase: str, losses: Losses, optimizer: Optimizer) -> None:
        for name, value in {"total": losses.total, **losses.parts}.items():
            is_finite = value.ndim == 0 and math.isfinite(value.item())
            require(is_finite, f"{name} of phase {phase} to be a finite scalar", value)
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        finite = all(bool(gradient.isfinite().all()) for gradient in gradients)
        require(finite, f"finite gradients in phase {phase}", "NaN or infinity")
        moves = any(bool(gradient.any()) for gradient in gradients)
        require(moves, f"a gradient in phase {phase} that is not zero", f"none for {len(weights)} weights")

    case.train(look=look)


def check_validation_gives_figures(case: FamilyCase) -> None:
    """Validating returns at least one finite float, by name."""
    import torch

    family = case.trained
    with torch.random.fork_rng(), torch.no_grad():
        means = family.validate(case.batch)
        figures = family.assess(STEPS, means) | means
    fine = bool(figures) and all(isinstance(value, float) and math.isfinite(value) for value in figures.values())
    require(fine, "finite floats by name", figures)


def check_training_repeats(case: FamilyCase) -> None:
    """Training twice from one seed gives the same weights to the bit, and another seed others."""
    from aigc_sdk.training.eager import weights_sha256

    first, again, other = (weights_sha256(case.train(seed)) for seed in (0, 0, 1))
    require(first == again, "the same weights from the same seed", "others")
    require(first != other, "other weights from another seed", "the same")


def check_weights_are_all_of_it(case: FamilyCase) -> None:
    """The state dict holds all that was learnt: loaded into a new family, it makes the same content."""
    family = case.build().eval()
    family.load_state_dict(case.trained.state_dict())
    for task in _models_of(family):
        ours, theirs = case.model(task), case.model(task, family)
        seeds, feeds = ours.defaults(4)
        pairs = zip(ours.items(seeds, feeds), theirs.items(seeds, feeds), strict=True)
        same = all(a.content.tobytes() == b.content.tobytes() for a, b in pairs)
        require(same, f"the same content of {task} after loading the weights", "other")


def check_samplers_keep_the_contract(case: FamilyCase) -> None:
    """The sampler of every task is a model: it passes what is checked of every model, in eager torch."""
    for task in _models_of(case.family_class):
        run_checks(f"the sampler of {task}", GENERATOR_CHECKS, case.model(task))


def check_every_task_exports(case: FamilyCase) -> None:
    """Training ends with a file for every task, and each passes what is checked of every model file."""
    from aigc_sdk.runtime import OnnxGenerator, OnnxMeasure
    from aigc_sdk.training import Run, train

    with TemporaryDirectory() as folder:
        if case.run_folder is None:
            config = {**case.config, "steps": STEPS}
            run = train(case.asked or case.spec.name, case.source, out=Path(folder) / "run", seed=0, config=config)
        else:
            run = Run.open(case.run_folder)
        require(set(run.models) == set(case.family_class.tasks), "a file for every task", sorted(run.models))
        for task, path in run.models.items():
            what = f"the exported file of {task}"
            if task in case.family_class.measures:
                run_checks(what, MEASURE_CHECKS, MeasureCase(OnnxMeasure.open(path), path))
            else:
                run_checks(what, (*FILE_CHECKS, *GENERATOR_CHECKS), ModelCase(OnnxGenerator.open(path), path))


def _models_of(family: Family | type[Family]) -> list[str]:
    """Return the tasks whose files make content."""
    return [task for task in family.tasks if task not in family.measures]


FAMILY_CHECKS: tuple[Check, ...] = (
    check_declarations,
    check_options_are_described,
    check_every_phase_has_an_optimizer,
    check_training_steps_are_finite,
    check_validation_gives_figures,
    check_training_repeats,
    check_weights_are_all_of_it,
    check_samplers_keep_the_contract,
    check_every_task_exports,
)
