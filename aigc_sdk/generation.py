"""Generation: finds and loads models, and is the one path that every generated item takes.

check the request -> policy plugins -> run in batches -> items with their provenance -> policy plugins
"""

from __future__ import annotations

import glob
import os
from collections.abc import Generator as Generated
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import repeat
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from aigc_sdk.contents import Contents, Item, Origin
from aigc_sdk.contents.base import record
from aigc_sdk.errors import (
    AigcError,
    GenerationFailed,
    InvalidModel,
    InvalidRequest,
    PluginError,
    StorageError,
    UnknownName,
    blamed,
    reason,
    shown,
)
from aigc_sdk.forking import unforked
from aigc_sdk.generator import Generator, check_content, check_parts, start_state
from aigc_sdk.kinds import kind_of
from aigc_sdk.loaded import Loaded
from aigc_sdk.modality import find_modality
from aigc_sdk.registry import Plugin, default_registry
from aigc_sdk.request import Request, build_request, build_requests, ends_at
from aigc_sdk.specs import GeneratorSpec, MeasureSpec, ModelSpec, sdk_version
from aigc_sdk.stopping import Parts, Stop, current_stop

if TYPE_CHECKING:  # not needed to import the SDK, which has to be quick
    from aigc_sdk.card import ModelCard
    from aigc_sdk.runtime import OnnxMeasure


class Model:
    """A loaded model: what `sdk.load` returns. Safe to use from many threads; a context manager.

    `card` says what the model takes and makes; `provider` says what runs it.

    Example:
        >>> import aigc_sdk as sdk
        >>> with sdk.load("digits-vae") as model:
        ...     sevens = model.generate(4, seed=1, label=7)
        >>> len(sevens)
        4
    """

    def __init__(self, generator: Generator) -> None:
        self._generator = generator

    @property
    def card(self) -> ModelCard:
        """What the model says of itself."""
        return self._generator.card

    @property
    def provider(self) -> str:
        """What runs the model, for example "CPUExecutionProvider (onnxruntime 1.31.1)"."""
        return self._generator.provider

    def __repr__(self) -> str:
        return f"<Model {self.card.name}:{self.card.task} on {self.provider}>"

    def __enter__(self) -> Model:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Release the model; generating with it afterwards raises GenerationFailed."""
        with blamed(f"The generator of {self.card.name} cannot be closed"):
            self._generator.close()

    def generate(
        self,
        n: int | None = None,
        *,
        seed: int | None = None,
        seeds: Iterable[int] | None = None,
        batch_size: int | None = None,
        deadline_s: float | None = 300,
        **controls: Any,
    ) -> Contents:
        """Generate n items. See `aigc_sdk.generate`, which takes the same arguments."""
        deadline = ends_at(deadline_s)
        request = build_request(
            self.card, n, seed=seed, seeds=seeds, batch_size=batch_size, deadline_s=deadline_s, controls=controls
        )
        return self._answer(request, deadline)

    def generate_iter(
        self,
        n: int | None = None,
        *,
        seed: int | None = None,
        seeds: Iterable[int] | None = None,
        batch_size: int | None = None,
        deadline_s: float | None = 300,
        **controls: Any,
    ) -> Parts[Contents]:
        """Generate n items batch by batch. See `aigc_sdk.generate_iter`, which takes the same arguments."""
        requests = build_requests(
            self.card, n, seed=seed, seeds=seeds, batch_size=batch_size, deadline_s=deadline_s, controls=controls
        )
        # A generator, so that after an error it is over; to go on would leave a batch out.
        return Parts(self._answer(request, ends_at(deadline_s)) for request in requests)

    def stream(
        self, *, seed: int | None = None, chunk_size: int = 1, deadline_s: float | None = 300, **controls: Any
    ) -> Parts[Any]:
        """Generate one text or piece of music, part by part. See `aigc_sdk.stream`, which takes the same arguments."""
        if not self.card.state:
            raise InvalidRequest(
                f"{self.card.name}:{self.card.task} makes all at once; use generate, or load its task stream."
            )
        if isinstance(chunk_size, bool) or not isinstance(chunk_size, int) or chunk_size < 1:
            raise InvalidRequest(f"chunk_size is {shown(chunk_size)}; give a whole number of at least 1.")
        request = build_request(
            self.card, 1, seed=seed, seeds=None, batch_size=None, deadline_s=deadline_s, controls=controls
        )
        return Parts(self._pieces(request, chunk_size))

    def _pieces(self, request: Request, chunk_size: int) -> Generated[Any, None, None]:
        registry = default_registry()
        if registry.hooks("aigc_after_generate"):  # they have to see all of it before the caller sees any
            item = self._answer(request, ends_at(request.deadline_s))[0]
            yield find_modality(self.card.modality).streamed(item.data, self.card.output)
            return
        for before in registry.hooks("aigc_before_generate"):
            before(request=request)
        yield from _streamed(self._generator, request, chunk_size)

    def _answer(self, request: Request, deadline: float | None) -> Contents:
        """Take a request the one path that there is, until the deadline, in seconds of `time.monotonic`."""
        registry = default_registry()
        for before in registry.hooks("aigc_before_generate"):
            before(request=request)
        contents = make_contents(self._generator, request, deadline)
        for after in registry.hooks("aigc_after_generate"):
            for replaced in after(request=request, contents=contents):
                contents = replaced
        return contents

    def _repr_html_(self) -> str:
        """Show the card in a notebook."""
        import html

        rows = (f"<tr><th>{html.escape(what)}</th><td>{html.escape(text)}</td></tr>" for what, text in self.card.rows())
        return f"<table>{''.join(rows)}</table>"


def make_contents(generator: Generator, request: Request, deadline: float | None = None) -> Contents:
    """Run a request batch by batch and return its items with their provenance, before any policy.

    Args:
        generator: makes the items.
        request: what is asked for.
        deadline: when to give up, in seconds of `time.monotonic`; None for never.

    Raises:
        DeadlineExceeded: the deadline passed.
        GenerationFailed: the generator failed, or returned something else than its card says, or was stopped.
    """
    card, items = generator.card, list[Item]()
    origin = Origin(
        card.name,
        card.version,
        card.graph_sha256,
        card.task,
        sdk_version(),
        generator.provider,
        tuple(request.controls),
        replace(card, golden=None),
    )
    recorders = {control.name: kind_of(control).record for control in card.controls}
    modality = find_modality(card.modality)
    stop = current_stop()
    for start in range(0, request.n, request.batch_size):
        if stop.is_set:
            raise GenerationFailed(f"{card.name} was stopped after {start} of {request.n} items.")
        rows = slice(start, start + request.batch_size)
        seeds = request.seeds[rows]
        batch = {name: values[rows] for name, values in request.controls.items()}
        with _running(card):
            outputs = generator.run(seeds, batch, deadline=deadline)
            content, parts = check_content(card, outputs, len(seeds)), check_parts(card, outputs, len(seeds))
            values = zip(*parts.values(), strict=True) if parts else repeat(())
            of_each = (dict(zip(parts, each, strict=True)) for each in values)
            items.extend(map(modality.make, content, seeds.tolist(), repeat(origin), record(batch, recorders), of_each))
    return Contents(items)


@contextmanager
def _running(card: ModelCard) -> Iterator[None]:
    """Make a GenerationFailed of whatever a plugin's generator may raise, SystemExit too."""
    try:
        yield
    except (AigcError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:
        raise GenerationFailed(f"{card.name} failed: {reason(error)}.") from error


def _streamed(generator: Generator, request: Request, chunk_size: int) -> Iterator[Any]:
    """Yield the parts of a request's one text or piece, each when it is made."""
    state, left = start_state(generator.card, 1), int(request.controls["max_length"][0])
    while left > 0:
        size = min(left, chunk_size)
        controls = {**request.controls, "max_length": np.array([size], np.int64)}
        with _running(generator.card):
            outputs = generator.go_on(request.seeds, controls, state, deadline=ends_at(request.deadline_s))
            made = check_content(generator.card, outputs, 1)[0]
            is_finished, state = bool(outputs["finished"][0]), {name: outputs[f"{name}.next"] for name in state}
        if len(made):
            yield find_modality(generator.card.modality).streamed(made, generator.card.output)
        if is_finished:
            return
        left -= size


def load(model: str | os.PathLike[str] | Model, *, task: str | None = None, device: str = "auto") -> Model:
    """Load a model, ready to generate.

    Args:
        model: the name of a ready-made model (`digits-vae`, or `digits-vae:interpolate` for another task of
            it), the path of an `.onnx` file or of a run folder, or a Model. A name comes before a folder of
            that name; "./NAME" is the folder.
        task: which task of the model; without it, its first. Where the name says a task too, it has to be this one.
        device: "auto" and "cpu" are the CPU; a named accelerator ("cuda", "cuda:1", "directml", "coreml", ...)
            that is not there is an error.

    Raises:
        UnknownName: no such model, task or device.
        InvalidRequest: the name says one task and `task` another.
        InvalidModel: the file is broken, hostile or no model of the contract.
        StorageError: the file cannot be read.
        DeviceUnavailable: the device is not there, or cannot run the model.
        GenerationFailed: the device makes other content of the golden items than rounding explains.
        PluginError: the plugin that brings the model failed, or several bring one of that name.

    Example:
        >>> import aigc_sdk as sdk
        >>> sdk.load("digits-vae:interpolate").card.task
        'interpolate'
    """
    if isinstance(model, Model):
        _check_task(model.card, task)
        if device != "auto":
            raise InvalidRequest(f"{model!r} is loaded already; give device={device!r} to sdk.load instead.")
        return model
    return Model(open_generator(model, task=task, device=device))


def generate(
    model: str | os.PathLike[str] | Model,
    n: int | None = None,
    *,
    seed: int | None = None,
    seeds: Iterable[int] | None = None,
    task: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    deadline_s: float | None = 300,
    **controls: Any,
) -> Contents:
    """Generate n items with a model: the same seed and controls give the same items.

    Models given by name or path stay loaded between calls: those that were used last, 512 MB of them, or as many MB as
    the environment variable AIGC_SDK_LOADED_MB says. However many threads ask for one at once, it is loaded once.

    Args:
        model: as in `aigc_sdk.load`.
        n: how many; without it, the length of a control that is a list, or 1.
        seed: 0 to 2^53 - 1; item 0 gets this seed itself and every further item one that is derived from it.
            Without it, a new one is drawn; every item's `.seed` makes that item again.
        seeds: the item seeds themselves, instead of n and seed.
        task: which task of the model; without it, its first.
        batch_size: items in one run; no effect on what is made.
        device: as in `aigc_sdk.load`.
        deadline_s: seconds after which the request fails, loading included; None for never.
        controls: what the model's card lists, for example `label=4`; one value for all items, or a list
            with one for each. A choice goes by name or number.

    Returns:
        The n items, in order.

    Raises:
        UnknownName: no such model, task, control, choice or device.
        InvalidRequest: a count, seed or control, or a value of AIGC_SDK_LOADED_MB, that cannot be used.
        InvalidModel, StorageError, DeviceUnavailable, PluginError: as in `aigc_sdk.load`.
        Refused: a policy plugin refused.
        DeadlineExceeded: it took longer than deadline_s.
        GenerationFailed: the model failed.

    Example:
        >>> import aigc_sdk as sdk
        >>> digits = sdk.generate("digits-vae", label=range(10), seed=7)
        >>> [item.provenance["controls"]["label"] for item in digits]
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """
    deadline = ends_at(deadline_s)
    loaded = keep_loaded(model, task=task, device=device, deadline=deadline)
    request = build_request(
        loaded.card, n, seed=seed, seeds=seeds, batch_size=batch_size, deadline_s=deadline_s, controls=controls
    )
    return loaded._answer(request, deadline)


def generate_iter(
    model: str | os.PathLike[str] | Model,
    n: int | None = None,
    *,
    seed: int | None = None,
    seeds: Iterable[int] | None = None,
    task: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    deadline_s: float | None = 300,
    **controls: Any,
) -> Iterator[Contents]:
    """Generate n items batch by batch, for more of them than fit in memory.

    Joined, the batches are what `generate` makes. What was wrongly asked for raises at once, before the first batch.
    Policy plugins see every batch as a request of its own. After an error or Ctrl-C the iterator is over, and every
    batch that it gave is whole.

    Args:
        model: as in `aigc_sdk.load`.
        n: how many, up to 2^32; without it, as in `generate`.
        seed: as in `generate`; the items' seeds are derived when it is their turn.
        seeds: as in `generate`.
        task: as in `generate`.
        batch_size: items in each batch but the last; no effect on what is made.
        device: as in `aigc_sdk.load`.
        deadline_s: seconds that loading may take, and each batch; None for never.
        controls: as in `generate`; a list has one value for each of the n items.

    Returns:
        An iterator over the batches, each Contents. Its `close` may be called from any thread: it ends the batch that
        is being made, with GenerationFailed where it is waited for.

    Raises:
        UnknownName, InvalidRequest, Refused, DeadlineExceeded, GenerationFailed: as `generate`.

    Example:
        >>> import aigc_sdk as sdk
        >>> [len(batch) for batch in sdk.generate_iter("digits-vae", 600, seed=7, batch_size=256)]
        [256, 256, 88]
    """
    loaded = keep_loaded(model, task=task, device=device, deadline=ends_at(deadline_s))
    return loaded.generate_iter(n, seed=seed, seeds=seeds, batch_size=batch_size, deadline_s=deadline_s, **controls)


def stream(
    model: str | os.PathLike[str] | Model,
    *,
    seed: int | None = None,
    chunk_size: int = 1,
    device: str = "auto",
    deadline_s: float | None = 300,
    **controls: Any,
) -> Iterator[Any]:
    """Generate one text or piece of music and give its parts while it is made.

    Joined, they are what `generate` makes of the same seed and controls: texts, or notes float32 (k, 6), see `Music`;
    which key and metre were drawn they do not say. `close` ends the part that is being made, as in `generate_iter`.
    Where a plugin looks at what was made, `aigc_after_generate`, all comes in one part, after it has.

    Args:
        model: as in `load`; one that has the task `stream`.
        seed: as in `generate`.
        chunk_size: characters of a part, the last one may be shorter; of music events, of which not all are notes.
        device: as in `load`.
        deadline_s: seconds that loading may take, and each part; None for never.
        controls: what the model's card lists, one value each.

    Raises:
        UnknownName, InvalidRequest, Refused, DeadlineExceeded, GenerationFailed: as `generate`.

    Example:
        >>> import aigc_sdk as sdk
        >>> list(sdk.stream("names", seed=7, label="surname", chunk_size=4))
        ['Fara', 'nt']
    """
    is_loaded = isinstance(model, Model)
    task = None if is_loaded else "stream"
    loaded = keep_loaded(model, task=task, device=device, deadline=ends_at(deadline_s))
    return loaded.stream(seed=seed, chunk_size=chunk_size, deadline_s=deadline_s, **controls)


async def agenerate(
    model: str | os.PathLike[str] | Model,
    n: int | None = None,
    *,
    seed: int | None = None,
    seeds: Iterable[int] | None = None,
    task: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    deadline_s: float | None = 300,
    **controls: Any,
) -> Contents:
    """Generate n items without holding up the event loop; takes, returns and raises what `generate` does.

    The work is done in a thread of asyncio's pool. Cancelling the awaiting task ends it: the run that is under way
    inside of onnxruntime, or the loading. A plugin's generator that runs something else ends before its next batch.

    Example:
        >>> import asyncio
        >>> import aigc_sdk as sdk
        >>> async def both():
        ...     return await asyncio.gather(*(sdk.agenerate("digits-vae", 2, seed=seed) for seed in (1, 2)))
        >>> asyncio.run(both())
        [<Contents: 2 x Image>, <Contents: 2 x Image>]
    """
    import asyncio

    def run() -> Contents:
        return generate(
            model,
            n,
            seed=seed,
            seeds=seeds,
            task=task,
            batch_size=batch_size,
            device=device,
            deadline_s=deadline_s,
            **controls,
        )

    stop = Stop()
    try:
        return await asyncio.to_thread(stop.run, run)
    finally:
        stop.set()


def keep_loaded(
    model: str | os.PathLike[str] | Model, *, task: str | None, device: str, deadline: float | None = None
) -> Model:
    """Load a model as `load` does; those that were given by name or path stay loaded, within `bound_bytes`.

    Raises:
        InvalidRequest: AIGC_SDK_LOADED_MB cannot be used.
        DeadlineExceeded: the deadline, of `time.monotonic`, passed.
        UnknownName, InvalidModel, StorageError, DeviceUnavailable, PluginError: as in `load`.
    """
    if isinstance(model, Model):
        return load(model, task=task, device=device)
    location = _locate(model, task)
    if not isinstance(device, str):  # nothing that could be looked up
        return load(model, task=task, device=device)

    def opened() -> tuple[Model, int]:
        made = Model(_open_generator(location, device))
        return made, made._generator.size_bytes

    # "auto" is the CPU; a task is one of the file's, or of the plugin's generator.
    path = location.source if isinstance(location.source, Path) else None
    what = (path, location.trusted_sha256, location.stamp()) if path else (location.source, location.task)
    key = (*what, "cpu" if device == "auto" else device)
    loaded = _kept.get(key, opened, deadline=deadline, name=shown(str(model)))
    if path is not None:
        _check_task(loaded.card, location.task, path)
    return loaded


_kept = Loaded[Model]()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_kept.after_fork)


def open_generator(model: str | os.PathLike[str], *, task: str | None = None, device: str = "auto") -> Generator:
    """Return what is under a model, without the path that requests take; raises as `load` does."""
    return _open_generator(_locate(model, task), device)


def selftest(model: str | os.PathLike[str], *, task: str | None = None, device: str = "auto") -> tuple[bool, str]:
    """Make the golden items of a model file again; return whether they pass, and what was measured."""
    from aigc_sdk.runtime import OnnxGenerator, OnnxMeasure

    opened = open_any(model, task=task, device=device, compares=False)
    if not isinstance(opened, OnnxGenerator | OnnxMeasure):
        raise InvalidRequest(f"{model!r} is a generator of a plugin; only model files have golden items.")
    likeness = opened.check_golden()
    return likeness.passed, likeness.measured


def model_file(model: str | os.PathLike[str], *, task: str | None = None, shape: tuple[int, ...] | None = None) -> Path:
    """Return the path of the ONNX file behind a name, a path or a run folder; takes and raises what `open_any` does."""
    source = _locate(model, task).source
    if isinstance(source, MeasureSpec) and shape is not None:
        source = _call_plugin(source, shape, Path)
    if not isinstance(source, Path):
        raise InvalidRequest(f"{model!r} is a generator or a measure of a plugin; it has no model file.")
    return source


@dataclass(frozen=True)
class ModelInfo:
    """A model or a measure that can be had by name: for `sdk.load`, or for `sdk.measure`, as `kind` says."""

    name: str
    tasks: tuple[str, ...]
    summary: str
    license: str
    kind: str = "model"


def models() -> list[ModelInfo]:
    """Return the models and measures that can be had by name, sorted by it.

    Example:
        >>> import aigc_sdk as sdk
        >>> [model.name for model in sdk.models() if model.kind == "model"]
        ['digits-gan', 'digits-vae', 'emoji-gan', 'folk-tunes', 'names', 'poems', 'shakespeare']
    """
    registry = default_registry()
    found = []
    for name in registry.names("model"):
        try:
            spec = registry.find("model", name)
        except PluginError:  # two plugins claim it; `plugins()` shows both
            continue
        tasks = tuple(spec.files) if isinstance(spec, ModelSpec) else spec.tasks
        found.append(ModelInfo(name, tasks, spec.summary, getattr(spec, "license", ""), spec.kind))
    return found


def plugins() -> list[Plugin]:
    """Return all plugins that are installed, the broken ones with the reason.

    Example:
        >>> import aigc_sdk as sdk
        >>> [plugin.name for plugin in sdk.plugins() if plugin.distribution == "aigc-sdk"]
        ['gan', 'image', 'metrics', 'music', 'onnx', 'rnn', 'text', 'vae', 'zoo']
    """
    return list(default_registry().plugins)


@dataclass(frozen=True)
class _Location:
    """Where a model is: a file, with the sha256 it should have if it is ready-made, or a generator plugin."""

    source: Path | GeneratorSpec | MeasureSpec
    task: str | None
    trusted_sha256: str | None = None

    def stamp(self) -> tuple[int, ...]:
        """Return what changes when the file does."""
        if not isinstance(self.source, Path):
            return ()
        try:
            status = self.source.stat()
        except (OSError, ValueError):  # opening it will say what is wrong
            return ()
        return status.st_ino, status.st_size, status.st_mtime_ns


def _locate(model: str | os.PathLike[str], task: str | None) -> _Location:
    if not isinstance(model, str | os.PathLike) or not os.fspath(model):
        raise InvalidRequest(f"model is {model!r}; give a name, the path of an .onnx file or run folder, or a Model.")
    if not isinstance(task, str | None):
        raise InvalidRequest(f"task is {shown(task)}; give the name of a task, or None.")
    path = Path(model)
    if isinstance(model, os.PathLike) or path.suffix == ".onnx" or {os.sep, "/"} & set(model):
        return _locate_path(path, task)
    try:
        spec, named_task = find_model(model)
    except UnknownName:
        if not os.path.isdir(path):
            raise
        return _locate_path(path, task)
    if None not in (task, named_task) and task != named_task:
        raise InvalidRequest(
            f"{shown(model)} names the task {shown(named_task)}, and task={shown(task)} another one; give one of them."
        )
    tasks = list(spec.files if isinstance(spec, ModelSpec) else spec.tasks)
    chosen = next(name for name in (task, named_task, tasks[0]) if name is not None)
    if chosen not in tasks:
        raise UnknownName.of(f"task of {spec.name}", chosen, tasks)
    if not isinstance(spec, ModelSpec):
        return _Location(spec, chosen)
    return _Location(spec.path(chosen), chosen, spec.files[chosen].sha256)


def find_model(name: str) -> tuple[ModelSpec | GeneratorSpec | MeasureSpec, str | None]:
    """Return the spec and the task of NAME, NAME:TASK, DISTRIBUTION:NAME or DISTRIBUTION:NAME:TASK."""
    registry = default_registry()
    try:
        return registry.find("model", name), None
    except UnknownName:
        head, colon, task = name.rpartition(":")
        if not colon:
            raise
    return registry.find("model", head), task


def _locate_path(path: Path, task: str | None) -> _Location:
    if not os.path.isdir(path):
        beside = path.parent / f"{path.stem}.{task}.onnx"  # as the files of a run lie
        return _Location(beside if task is not None and os.path.exists(beside) else path, task)
    if not os.access(path, os.X_OK):
        raise StorageError(f"Cannot read {path}: the folder may not be entered.")
    main, other = path / "model.onnx", path / f"model.{task}.onnx"
    if task is not None and os.path.exists(other):
        return _Location(other, task)
    if not os.path.exists(main):
        raise InvalidModel(f"{path} has no model.onnx; it is not a run folder, or its training did not finish.")
    return _Location(main, task)


def open_any(
    model: str | os.PathLike[str],
    *,
    task: str | None = None,
    device: str = "auto",
    shape: tuple[int, ...] | None = None,
    compares: bool = True,
) -> Generator | OnnxMeasure:
    """Open what a name, a path or a run folder stands for, be it a model or a measure.

    Args:
        model: as in `load`.
        task: which task of it; without it, its first.
        device: as in `load`.
        shape: of one item of the contents, for a measure that is made for them.
        compares: raise for golden items that come out otherwise by more than rounding explains.

    Raises:
        InvalidRequest: a measure that is made for the contents, and no shape.
        UnknownName, InvalidModel, StorageError, DeviceUnavailable, PluginError, MissingPackage: as in `load`.
    """
    return _open(_locate(model, task), device, shape, compares=compares)


def _open(
    location: _Location, device: str, shape: tuple[int, ...] | None = None, *, compares: bool = True
) -> Generator | OnnxMeasure:
    if isinstance(source := location.source, GeneratorSpec):
        generator: Generator = _call_plugin(source, location.task, Generator)
        return generator
    if isinstance(source, MeasureSpec):
        if shape is None:
            raise InvalidRequest(
                f"{source.name!r} is a measure that is made for the contents at hand; use"
                f" sdk.measure({source.name!r}, contents)."
            )
        source = _call_plugin(source, shape, Path)
    with unforked:
        from aigc_sdk.runtime import open_model

    opened = open_model(source, device=device, trusted_sha256=location.trusted_sha256, compares=compares)
    _check_task(opened.card, location.task, source)
    return opened


def _call_plugin(spec: GeneratorSpec | MeasureSpec, argument: Any, wanted: type[Any]) -> Any:
    factory = spec.resolve()
    with blamed(f"The {'generator' if wanted is Generator else 'measure'} {spec.name!r} cannot start"):
        made = factory(argument)
        if not isinstance(made, wanted):
            raise TypeError(f"{spec.target} returned {shown(made)}, which is no {wanted.__name__}")
        if isinstance(made, Generator):
            _check_card(made)
            if not isinstance(made.provider, str) or not isinstance(made.size_bytes, int):
                raise TypeError(f"its provider is {shown(made.provider)}, its size_bytes {shown(made.size_bytes)}")
    return made


def _check_card(generator: Generator) -> None:
    """Raise ValueError or TypeError when the card that a plugin wrote is none."""
    from aigc_sdk.card import ModelCard, checked

    if not isinstance(generator.card, ModelCard):
        raise TypeError(f"its card is {shown(generator.card)}, which is no ModelCard")
    if checked(ModelCard, vars(generator.card)) != generator.card:
        raise TypeError("its card has values of other types than a ModelCard has")
    try:
        find_modality(generator.card.modality).check_output(generator.card.output)
    except UnknownName as error:
        raise ValueError(str(error)) from error


def _open_generator(location: _Location, device: str) -> Generator:
    opened = _open(location, device)
    if not isinstance(opened, Generator):
        opened.card.check_kind("model")
    assert isinstance(opened, Generator)
    return opened


def _check_task(card: ModelCard, task: str | None, path: Path | None = None) -> None:
    if task is not None and task != card.task:
        beside = path.parent.glob(f"{glob.escape(path.stem)}.*.onnx") if path else ()  # the other tasks of a run
        others = [other.name.removesuffix(".onnx").rpartition(".")[2] for other in beside]
        raise UnknownName.of(f"task of {card.name}", task, [card.task, *others])
