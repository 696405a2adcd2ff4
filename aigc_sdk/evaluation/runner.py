"""`sdk.evaluate`: from a model and a reference to a report."""

import logging
import math
import os
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.contents import Contents
from aigc_sdk.errors import InvalidData, InvalidRequest, MissingPackage, PluginError, blamed, shown
from aigc_sdk.evaluation.features import Extractor, check_features, extract, extract_cached, find_extractor, resizing
from aigc_sdk.evaluation.neighbours import nearest
from aigc_sdk.evaluation.parts import Part, find_parts
from aigc_sdk.evaluation.report import Pair, Pictures, Report
from aigc_sdk.evaluation.subject import Subject, find_subject
from aigc_sdk.evaluator import Direction, Evaluator, ItemSamples, Measured, Samples, Score
from aigc_sdk.generation import Model
from aigc_sdk.modality import find_modality
from aigc_sdk.registry import default_registry
from aigc_sdk.seeds import check_seed
from aigc_sdk.specs import EvaluatorSpec, sdk_version

Array = NDArray[Any]
Rows = NDArray[np.int64]

# Without n, as many items are generated as there are held-out ones, but no more than this.
MOST_ITEMS = 10_000
# Of larger training sets so many are looked at, drawn with the seed.
MOST_TRAIN = 100_000
_PAIRS = 8
_PAIRS_OF = 1000
_NO_TRAIN = "nobody said what the model was trained on; give train=, or a reference that is the training data itself"

_log = logging.getLogger("aigc_sdk")


def evaluate(
    model_or_contents: str | os.PathLike[str] | Model | Contents | Array,
    reference: Any,
    *,
    train: Any = None,
    metrics: Iterable[str] | None = None,
    n: int | None = None,
    seed: int = 0,
    extractor: Any = None,
    **controls: Any,
) -> Report:
    """Measure how good a model is: how near its items are to real ones, how true and varied, and whether it copies.

    Generated items are compared with as many of the reference. When the reference is the data that the model was
    trained on, its test part is used, and its train part for copying and for the baseline. With other data `train`
    says what the model was trained on; without it copying is not measured. `n` sets how many items; scores of
    different n do not compare.

    Args:
        model_or_contents: as in `aigc_sdk.load`; or contents that were made, as `Contents`, uint8 (n, h, w, c), or a
            list of texts, or of pieces of music.
        reference: data as in `aigc_sdk.train`, of the size that the model makes. Of a stream the pieces count.
        train: the data that the model was trained on, when the reference is other data.
        metrics: names, for example ["frechet", "copying"]; without it, all that are installed, of which one that
            fails, or has too few items, is not measured, with the reason.
        n: how many items; without it, as many as there are held-out ones, at most 10,000.
        seed: of the generated items, of what is drawn from larger data, and of the bootstrap.
        extractor: what turns items into features: the name or path of a measure; without it, the one for this size.
            Texts and music are compared as they are.
        controls: as in `aigc_sdk.generate`.

    Raises:
        UnknownName: no such model, metric, extractor or control.
        InvalidRequest: n, seed, metrics, an extractor or a control that cannot be used.
        InvalidData: data that cannot be read or compared, too few items for a metric that was named or for
            all of them, or constant features.
        InvalidModel: a broken model or extractor.
        MissingPackage: the extra `evaluate` is not installed, or another that the data needs; says the pip line.
        PluginError: a metric that was named failed.

    Example:
        >>> import aigc_sdk as sdk
        >>> sdk.evaluate("digits-vae", "no-data-here.npz")
        Traceback (most recent call last):
        aigc_sdk.errors.InvalidData: reference: There is no data at no-data-here.npz.
    """
    check_seed(seed)
    subject = find_subject(model_or_contents, controls)
    evaluators, not_measured = _evaluators(metrics, subject.modality)
    whole, train_part = find_parts(subject.card, subject.modality, subject.shape, reference, train)
    n = subject.count(n, default=min(len(whole), MOST_ITEMS))
    real = whole.take(n, seed)
    by_features = find_modality(subject.modality).evaluation.has_features
    known = train_part.take(MOST_TRAIN, seed) if train_part and by_features else train_part
    left_out = _left_out(evaluators, n, len(real), known is not None, are_named=metrics is not None)
    not_measured |= left_out
    compare = _compare_features if by_features else _compare_items
    samples, extraction, pictures, items = compare(subject, real, known, n, seed, controls, extractor)
    common = {
        "n_real": len(real),
        "n_fake": n,
        **extraction,
        "reference": whole.fingerprint,
        "seed": seed,
    }
    scores = []
    for name, each in evaluators.items():
        if name in left_out:
            continue
        try:
            about = {"train": known.fingerprint} if known and each.needs_train else {}
            scores.append(_score(name, each, items() if each.needs_items else samples, common | about))
        except PluginError as error:
            if metrics is not None:
                raise
            not_measured[name] = str(error).rstrip(".")
    return Report(
        subject=subject.name,
        scores=tuple(scores),
        not_measured=not_measured,
        explanations={name: each.explanation for name, each in evaluators.items()},
        protocol={
            "model": subject.origin,
            "controls": {name: shown(value) for name, value in controls.items()},
            "reference_name": whole.name,
            **common,
            **({} if known is None else {"train_name": known.name, "train": known.fingerprint, "n_train": len(known)}),
            "sdk_version": sdk_version(),
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        },
        pictures=pictures,
    )


def check_evaluation(
    model: Model, reference: Any, *, metrics: Iterable[str] | None, n: int | None, extractor: Any
) -> None:
    """Raise what `evaluate` would raise of a model before it generates, as far as the weights do not matter.

    Args:
        model: of any weights, so that this can be known before a training.
        reference: as in `evaluate`; None for the test part of what the model's card was trained on.
        metrics: as in `evaluate`.
        n: as in `evaluate`.
        extractor: as in `evaluate`.

    Raises:
        InvalidRequest: a control has no default, the metrics or the extractor do not fit the modality or its size.
        InvalidData, UnknownName, InvalidModel, MissingPackage, PluginError: as in `evaluate`.
    """
    card, subject = model.card, find_subject(model, {})
    if needed := [control.name for control in card.controls if control.default is None]:
        raise InvalidRequest(
            f"{card.family}:{card.task} cannot be evaluated without its control {needed[0]!r}, which has no default."
        )
    evaluators, _ = _evaluators(metrics, subject.modality)
    if reference is None:
        n_real = card.data.split["test"]
    else:
        n_real = len(find_parts(card, subject.modality, subject.shape, reference, None)[0])
    n_real = min(n_real, n or MOST_ITEMS)
    _left_out(evaluators, n or n_real, n_real, has_train=True, are_named=metrics is not None)
    _check_extractor(extractor, subject)


def _check_extractor(extractor: Any, subject: Subject) -> None:
    """Raise InvalidRequest where an extractor is given and none is used, or one of another size."""
    if subject.shape is None:
        if extractor is not None:
            what = find_modality(subject.modality).plural.capitalize()
            raise InvalidRequest(f"{what} are compared as they are; leave out the extractor {shown(extractor)}.")
        return
    card = find_extractor(extractor, subject.shape, subject.modality).card
    taken = getattr(card, "input", None)  # somebody's own extractor says nothing of it
    if taken is not None and (taken.dtype, taken.shape) != ("uint8", subject.shape):
        raise InvalidRequest(
            f"The extractor {card.name} takes {taken.dtype} {taken.shape}; the images of {subject.name} are"
            f" {subject.shape} (height, width, channels)."
        )


def _compare_features(
    subject: Subject, real: Part, train: Part | None, n: int, seed: int, controls: dict[str, Any], extractor: Any
) -> tuple[Samples, dict[str, str], Pictures, Callable[[], ItemSamples]]:
    """Make items; return the features of all, what made these, what the report shows, and what gives the items."""
    assert subject.shape is not None
    shown_n = find_modality(subject.modality).evaluation.on_page
    measure = find_extractor(extractor, subject.shape, subject.modality)
    fake, asked = subject.make(n, seed, controls)
    rng = np.random.default_rng(seed)
    order = rng.permutation(0 if train is None else len(train))
    real_order = rng.permutation(len(real))
    samples = _samples(measure, fake, real, real_order, train, order)
    pictures = Pictures(
        fake=fake[:shown_n],
        real=real[real_order[:shown_n]],
        modality=subject.modality,
        pairs=() if train is None else _pairs(samples, fake, train, order),
        metrics_file=subject.metrics_file,
    )
    card = measure.card
    names = {"extractor": card.name, "extractor_sha256": card.graph_sha256, "resizing": resizing(measure)}
    return samples, names, pictures, lambda: _items(subject, fake, asked, real, train, n, seed)


def _compare_items(
    subject: Subject, real: Part, train: Part | None, n: int, seed: int, controls: dict[str, Any], extractor: Any
) -> tuple[ItemSamples, dict[str, str], Pictures, Callable[[], ItemSamples]]:
    """Make items; return all, which are compared as they are, what the report shows, and what gives them."""
    _check_extractor(extractor, subject)
    fake, asked = subject.make(n, seed, controls)
    samples = _items(subject, fake, asked, real, train, n, seed)
    first = slice(0, find_modality(subject.modality).evaluation.on_page)
    pictures = Pictures(fake[first], samples.real[first], subject.modality, metrics_file=subject.metrics_file)
    none = {"extractor": "none", "extractor_sha256": "", "resizing": "none"}
    return samples, none, pictures, lambda: samples


def _items(
    subject: Subject, fake: Any, asked: dict[str, list[Any]], real: Part, train: Part | None, n: int, seed: int
) -> ItemSamples:
    """Return the items themselves; real ones, and training items for the baseline, in random order."""
    rng = np.random.default_rng(seed)
    items = real.items()
    held_out = tuple(items[i] for i in rng.permutation(len(items)))
    known = baseline = None
    if train is not None:
        given = train.items()
        baseline = tuple(given[i] for i in rng.permutation(len(given))[:n])
        known = find_modality(subject.modality).evaluation.known(given, train.dataset)
    return ItemSamples(fake, held_out, known, baseline, asked)


def _evaluators(metrics: Iterable[str] | None, modality: str) -> tuple[dict[str, Evaluator], dict[str, str]]:
    """Return the metrics by name, and those that cannot start with the reason, unless they were asked for by name.

    Without names they are all of this modality.

    Raises:
        InvalidRequest: what was asked for is no list of names, or has one of another modality.
    """
    names = default_registry().names("metric")
    if metrics is not None:
        asked = [] if isinstance(metrics, str) or not isinstance(metrics, Iterable) else list(metrics)
        if not asked or not all(isinstance(name, str) for name in asked):
            raise InvalidRequest(f"metrics is {shown(metrics)}; give a list of names, some of {', '.join(names)}.")
        names = list(dict.fromkeys(asked))
    evaluators, failed = {}, {}
    kind = find_modality(modality)
    wanted = {modality, ""} if kind.evaluation.has_features else {modality}
    for name in names:
        try:
            if _measures(name) in wanted:
                evaluators[name] = _started(name)
            elif metrics is not None:
                measured = _measures(name)
                what = find_modality(measured).plural if measured else "what has features"
                raise InvalidRequest(f"The metric {name} measures {what}, and these are {kind.plural}.")
        except (PluginError, MissingPackage) as error:
            if metrics is not None:
                raise
            failed[name] = str(error).rstrip(".")
    return evaluators, failed


def _measures(name: str) -> str:
    """Return the modality that a metric is for; it is imported only where its spec does not say it."""
    spec: EvaluatorSpec = default_registry().find("metric", name)
    return str(spec.resolve().modality if spec.modality is None else spec.modality)


def _started(name: str) -> Evaluator:
    metric = default_registry().find("metric", name).resolve()
    with blamed(f"The metric {name!r} cannot start"):
        made: Evaluator = metric()
        if made.direction not in get_args(Direction) or not isinstance(made.explanation, str):
            raise TypeError(f"its direction is {shown(made.direction)}, its explanation {shown(made.explanation)}")
        if not isinstance(made.min_items, int):
            raise TypeError(f"its min_items is {shown(made.min_items)}")
    return made


def _left_out(
    evaluators: dict[str, Evaluator], n_fake: int, n_real: int, has_train: bool, *, are_named: bool
) -> dict[str, str]:
    """Return the metrics that cannot be measured with these items, with the reasons.

    Raises:
        InvalidData: there are too few items for one, and they were asked for by name, or none is left.
    """
    left_out, too_few = {}, {}
    for name, each in evaluators.items():
        if each.needs_train and not has_train:
            left_out[name] = _NO_TRAIN
        elif min(n_fake, n_real) < each.min_items:
            too_few[name] = (
                f"The metric {name} needs at least {each.min_items} generated and as many held-out items;"
                f" there are {n_fake} and {n_real}"
            )
    if too_few and are_named:
        raise InvalidData(f"{next(iter(too_few.values()))}. Give more, or leave it out with metrics=.")
    if too_few and len(left_out) + len(too_few) == len(evaluators):
        least = min(too_few, key=lambda name: evaluators[name].min_items)
        raise InvalidData(
            f"{too_few[least]}, and no other can be measured either. Give more; of what a"
            " model was trained on only its test part is held out."
        )
    return left_out | too_few


def _samples(measure: Extractor, fake: Array, real: Part, real_order: Rows, train: Part | None, order: Rows) -> Samples:
    """Return the features of all items, the real ones and the training items in the given orders."""
    made = extract(measure, fake)
    found = {"reference": extract_cached(measure, real)[real_order]}
    if train is not None:
        found["train"] = extract_cached(measure, train)[order]
    for what, features in found.items():
        check_features(features, what, measure, made.shape[1])
    return Samples(made, found["reference"], found.get("train"))


def _score(name: str, evaluator: Evaluator, samples: Any, common: dict[str, Any]) -> Score:
    _log.info("measuring %s", name)
    with blamed(f"The metric {name!r} failed"):
        figures = _plain(evaluator.measure(samples, common["seed"]))
    return Score(metric=name, direction=evaluator.direction, **common, **figures)


def _plain(measured: Measured) -> dict[str, Any]:
    """Return what a metric found as Python's own values, which JSON can hold; raises when it is something else."""
    value, (low, high) = float(measured.value), map(float, measured.interval)
    baseline = None if measured.baseline is None else float(measured.baseline)
    details = {str(name): float(figure) for name, figure in measured.details.items()}
    if not all(map(math.isfinite, (value, low, high, baseline or 0, *details.values()))):
        raise ValueError(f"it returned {shown(measured)}")
    return {
        "value": value,
        "interval": (low, high),
        "baseline": baseline,
        "details": details,
        "verdict": str(measured.verdict),
    }


def _pairs(samples: Samples, fake: Array, train: Part, order: Rows) -> tuple[Pair, ...]:
    """Return what looks most like a copy among the first 1,000 items, each with the training item nearest to it.

    That is an item far nearer to one training item than to the next ones; plain items are near to many.
    """
    assert samples.train is not None
    distances, indices = nearest(samples.fake[:_PAIRS_OF], samples.train, min(5, len(train)))
    ratios = distances[:, 0] / np.maximum(distances[:, -1], np.finfo(float).tiny)
    chosen = np.argsort(ratios, kind="stable")[:_PAIRS]
    originals = train[order[indices[chosen, 0]]]
    return tuple(map(Pair, fake[chosen], originals, distances[chosen, 0].tolist()))
