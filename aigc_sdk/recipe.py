"""Recipes: the stages of a model, from data to scores, in one TOML file.

    summary = "handwritten digits, by label"    # for people; may be left out

    [data]
    path = "digits.npz"         # or name = "mnist": the data is then given when the recipe is run

    [train]
    family = "vae"
    seed = 1                    # 0 if left out
    out = "runs/digits"         # the run folder; the recipe's name in the current folder if left out

    [train.config]              # the family's options
    epochs = 24

    [evaluate]                  # may be left out
    reference = "test.npz"      # the held-out part of the data if left out
    metrics = ["frechet"]       # all that are installed if left out
    n = 5000                    # as many as there are held-out items if left out
    seed = 0
    extractor = "cats.onnx"     # a file, or the name of a measure; the one for this size if left out

    [export]                    # may be left out: copies of the model files, as NAME.onnx and NAME.TASK.onnx
    folder = "models"
    tasks = ["generate"]        # all if left out

Paths are relative to the recipe. The first task's model file is what is evaluated, and carries the scores in its card.
"""

import json
import os
import shutil
import tomllib
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from aigc_sdk.card import Limit, checked
from aigc_sdk.errors import (
    AigcError,
    InvalidConfig,
    InvalidData,
    InvalidRequest,
    MissingPackage,
    StorageError,
    UnknownName,
    missing_package,
)
from aigc_sdk.evaluation import evaluate
from aigc_sdk.evaluation.parts import read_like
from aigc_sdk.evaluation.runner import check_evaluation
from aigc_sdk.evaluation.scores import add_scores
from aigc_sdk.files import as_path, atomic_pair, make_folder, read_file, write_bytes
from aigc_sdk.generation import Model, find_model, load, open_any
from aigc_sdk.generator import Generator
from aigc_sdk.modality import find_modality
from aigc_sdk.registry import default_registry
from aigc_sdk.seeds import MAX_SEED

if TYPE_CHECKING:
    from aigc_sdk.training import Run

# What was evaluated last in a run folder, so that it is not done again.
EVALUATED = "evaluated.json"

_Path = Annotated[str, Limit(min_length=1)]
_Seed = Annotated[int, Limit(strict=True, ge=0, le=MAX_SEED)]


class _Table:
    __pydantic_config__: ClassVar[Any] = {"extra": "forbid"}


@dataclass(frozen=True, kw_only=True)
class DataStage(_Table):
    """What to train on: a path, or a name for data that is given when the recipe is run."""

    path: _Path | None = None
    name: str | None = None


@dataclass(frozen=True, kw_only=True)
class TrainStage(_Table):
    """What `aigc_sdk.train` is asked for."""

    family: str
    seed: _Seed = 0
    out: _Path | None = None
    config: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class EvaluateStage(_Table):
    """What `aigc_sdk.evaluate` is asked for."""

    reference: _Path | None = None
    metrics: Annotated[tuple[str, ...], Limit(min_length=1)] | None = None
    n: Annotated[int, Limit(strict=True, ge=1)] | None = None
    seed: _Seed = 0
    extractor: _Path | None = None


@dataclass(frozen=True, kw_only=True)
class ExportStage(_Table):
    """Where copies of the model files go, and of which tasks."""

    folder: _Path
    tasks: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe(_Table):
    """A recipe, read and checked."""

    data: DataStage
    train: TrainStage
    evaluate: EvaluateStage | None = None
    export: ExportStage | None = None
    summary: str = ""

    @classmethod
    def read(cls, path: Path) -> "Recipe":
        """Read a recipe.

        Raises:
            StorageError: the file cannot be read.
            InvalidConfig: it is no TOML, or a value is missing, of the wrong type or out of range.
            UnknownName: a key that no recipe has; has the nearest one.
        """
        from pydantic import ValidationError

        try:
            values = tomllib.loads(read_file(path).decode())
        except AigcError:
            raise
        except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
            raise InvalidConfig(f"{path} is no TOML: {error}.") from error
        stages = {"data": DataStage, "train": TrainStage, "evaluate": EvaluateStage, "export": ExportStage}
        _check_keys(values, cls, f"recipe {path.name}")
        for name, stage in stages.items():
            if isinstance(table := values.get(name), dict):
                _check_keys(table, stage, f"[{name}] in {path.name}")
        try:
            return checked(cls, values)
        except ValidationError as error:
            problems = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise InvalidConfig(f"{path.name}: {'; '.join(problems)}.") from error


def run(recipe: str | os.PathLike[str], *, data: Any = None, out: str | os.PathLike[str] | None = None) -> "Run":
    """Run the stages of a recipe; see `aigc_sdk.run`."""
    path = as_path(recipe, "recipe")
    wanted = Recipe.read(path)
    source = _source(wanted, path) if data is None else data
    _check_stages(wanted, path)
    folder = Path(path.stem) if wanted.train.out is None else path.parent / wanted.train.out
    stage = wanted.train
    from aigc_sdk.training import train

    def check(generator: Generator) -> None:
        if wanted.evaluate is not None:
            _check_evaluation(generator, wanted.evaluate, path)

    target = folder if out is None else as_path(out, "out")
    trained = train(stage.family, source, out=target, seed=stage.seed, resume=True, config=stage.config, check=check)
    if wanted.evaluate is not None:
        _evaluate(trained, wanted.evaluate, path, source)
    if wanted.export is not None:
        copy_models(trained, path.parent / wanted.export.folder, wanted.export.tasks)
    return trained


def copy_models(run: "Run", folder: Path, tasks: Iterable[str] | None = None) -> dict[str, Path]:
    """Copy the model files of a run as NAME.onnx and NAME.TASK.onnx, each with its card; return them by task."""
    made, copies = make_folder(folder), {}
    for i, (task, source) in enumerate(run.models.items()):
        if tasks is not None and task not in tasks:
            continue
        copies[task] = target = made / (f"{run.record.name}.onnx" if i == 0 else f"{run.record.name}.{task}.onnx")
        card = target.with_suffix(".card.json")
        with atomic_pair(card, target, asked=target) as (card_file, model_file):
            shutil.copyfile(source, model_file)
            card_file.write_bytes(open_any(source, compares=False).card.to_json().encode())
    return copies


def _check_keys(values: dict[str, Any], table: type[Any], where: str) -> None:
    known = [each.name for each in fields(table)]
    for key in values:
        if key not in known:
            raise UnknownName.of(f"key of {where}", key, known)


def _source(recipe: Recipe, path: Path) -> Path:
    """Return the path of the data."""
    if recipe.data.path is None:
        what = f"the data set {recipe.data.name!r}" if recipe.data.name else "a data set, and names no path of it"
        raise InvalidRequest(f"{path.name} needs {what}; give it as data (--data).")
    return path.parent / recipe.data.path


def _check_stages(recipe: Recipe, path: Path) -> None:
    """Check what the stages ask for, as far as it can be known before the first one has begun."""
    registry = default_registry()
    family = registry.find("family", recipe.train.family).resolve()
    from aigc_sdk.training.family import parse_config  # only now, when a missing package has been named

    config = parse_config(recipe.train.family, family.Config, recipe.train.config)
    if recipe.evaluate is not None:
        if find_spec("matplotlib") is None:
            raise missing_package("The report of a recipe", "matplotlib", "evaluate")
        for metric in recipe.evaluate.metrics or ():
            fewest = registry.find("metric", metric).resolve().min_items
            if recipe.evaluate.n is not None and recipe.evaluate.n < fewest:
                raise InvalidConfig(f"{path.name}: evaluate.n is {recipe.evaluate.n}; {metric} needs {fewest} items.")
        reference = recipe.evaluate.reference
        if reference is None and config.test_fraction == 0:
            raise InvalidConfig(
                f"{path.name} evaluates against the test part of its data, and test_fraction is 0; give a reference in"
                " [evaluate], or a larger test_fraction."
            )
        if reference is not None and not os.path.exists(path.parent / reference):
            raise InvalidData(f"There is no data at {path.parent / reference}, the reference of {path.name}.")
        _extractor_sha256(recipe.evaluate, path)
    if recipe.export is not None:
        folder = path.parent / recipe.export.folder
        above = next(
            parent for parent in (folder, *folder.parents) if os.path.lexists(parent) or parent == parent.parent
        )
        if not os.path.isdir(above):
            what = "is" if above == folder else f"cannot be made, as {above} is"
            raise StorageError(f"{folder}, the export folder of {path.name}, {what} a file.")
        if not os.access(above, os.W_OK):
            raise StorageError(
                f"{folder}, the export folder of {path.name}, cannot be made: {above} may not be written."
            )
    for task in (recipe.export and recipe.export.tasks) or ():
        if task not in family.tasks:
            raise UnknownName.of(f"task of the family {recipe.train.family}", task, family.tasks)


def _check_evaluation(generator: Generator, stage: EvaluateStage, path: Path) -> None:
    """Check what the evaluation needs, when the data is read and before the training begins."""
    if generator.card.kind != "model":
        raise InvalidConfig(f"{path.name} cannot evaluate: the first task of the family measures, and makes nothing.")
    reference = None if stage.reference is None else path.parent / stage.reference
    extractor = _extractor(stage, path)
    try:
        check_evaluation(Model(generator), reference, metrics=stage.metrics, n=stage.n, extractor=extractor)
    except (InvalidData, InvalidRequest, MissingPackage) as error:
        raise type(error)(f"[evaluate] in {path.name}: {error}") from error


def _extractor(stage: EvaluateStage, path: Path) -> Path | str | None:
    """Return the extractor that the stage asks for: a file, by its path from the recipe, or else a name."""
    file = path.parent / (stage.extractor or "")
    return file if stage.extractor is not None and os.path.exists(file) else stage.extractor


def _extractor_sha256(stage: EvaluateStage, path: Path) -> str | None:
    """Return the identity of an extractor that is a file, and of none else; raises when there is no such measure."""
    extractor = _extractor(stage, path)
    if isinstance(extractor, Path):
        card = open_any(extractor).card
        card.check_kind("measure")
        return card.graph_sha256
    if extractor is not None and (spec := find_model(extractor)[0]).kind != "measure":
        raise InvalidRequest(f"The extractor of {path.name}, {spec.name!r}, is a model; give a measure.")
    return None


def _evaluate(run: "Run", stage: EvaluateStage, path: Path, source: Any) -> None:
    """Measure the run's first task, write the report, and the scores into the card; once for what is asked for."""
    model = run.models[next(iter(run.models))]
    card = load(model).card
    own = stage.reference is None
    shape = card.output.shape if find_modality(card.modality).evaluation.has_features else None
    reference = source
    if not own:
        reference = read_like(card, card.modality, shape, "reference", path.parent / str(stage.reference))
    identities = {
        "metrics": default_registry().names("metric") if stage.metrics is None else stage.metrics,
        "graph_sha256": card.graph_sha256,
        "extractor_sha256": _extractor_sha256(stage, path),
        "reference_fingerprint": card.data.fingerprint if own else reference.fingerprint,
    }
    asked = json.dumps({**asdict(stage), **identities}).encode()
    done = run.folder / EVALUATED
    is_scored = any("extractor_sha256" in score for score in card.scores)  # or the file was exported anew
    if is_scored and os.path.lexists(done) and read_file(done) == asked:
        return
    report = evaluate(
        run.folder,
        reference,
        train=None if own else source,
        metrics=stage.metrics,
        n=stage.n,
        seed=stage.seed,
        extractor=_extractor(stage, path),
    )
    add_scores(model, [score.to_dict() for score in report.scores])
    report.save(run.folder)
    write_bytes(done, asked)
