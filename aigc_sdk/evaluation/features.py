"""Features: what an extractor makes of contents, checked, and kept in the cache for data sets."""

import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.broken import BROKEN
from aigc_sdk.errors import AigcError, InvalidData, InvalidModel, InvalidRequest, StorageError, reason, shown
from aigc_sdk.evaluation.extractors import open_measure
from aigc_sdk.evaluation.parts import Part
from aigc_sdk.files import atomic_write, cache_folder, make_folder, remove_unused
from aigc_sdk.modality import find_modality

Array = NDArray[Any]
Features = NDArray[np.float32]

_BATCH = 1000

_log = logging.getLogger("aigc_sdk")


class Extractor(Protocol):
    """What turns contents into features: a measure of the contract, or anything with its `card` and `run`.

    Of the card, `name`, `graph_sha256` (64 hexadecimal digits, others for other features) and `config` are used.
    """

    card: Any

    def run(self, content: Array) -> Array:
        """Return float32 (n, K) for content (n, ...); row i depends on item i alone."""


def find_extractor(given: Any, shape: tuple[int, ...], modality: str) -> Extractor:
    """Return the extractor: what was given, loaded if it is a name or a path, or else the one for this shape.

    Args:
        given: a name, a path, an Extractor, or None.
        shape: of an item.
        modality: what the items are.

    Raises:
        InvalidRequest: what was given is no extractor, or has a card that cannot be used.
        UnknownName, InvalidModel, StorageError, MissingPackage: as in `aigc_sdk.measure`.
    """
    if given is None:
        return open_measure(find_modality(modality).evaluation.extractor(shape), shape)
    if callable(getattr(given, "run", None)) and hasattr(given, "card"):
        _check_card(given.card)
        return given  # type: ignore[no-any-return]  # it has what an Extractor has
    return open_measure(given, shape, "extractor")


def _check_card(card: Any) -> None:
    """Raise InvalidRequest when what stands in a score and in a path of the cache is not fit for it."""
    name, sha256, config = (getattr(card, field, None) for field in ("name", "graph_sha256", "config"))
    is_hash = isinstance(sha256, str) and re.fullmatch("[0-9a-f]{64}", sha256)
    for field, value, is_right, allowed in (
        ("name", name, isinstance(name, str) and name and name.isprintable(), "a text of one line"),
        ("graph_sha256", sha256, is_hash, "64 hexadecimal digits"),
        ("config", config, isinstance(config, Mapping), "a mapping"),
    ):
        if not is_right:
            raise InvalidRequest(f"The {field} on the extractor's card is {shown(value)}; it has to be {allowed}.")


def resizing(extractor: Extractor) -> str:
    """Return what the extractor does to the size of an item, in words, as its card says."""
    return str(extractor.card.config.get("resizing", "none"))


def extract(extractor: Extractor, content: Array | Part) -> Features:
    """Return the features of the contents, float32 (n, K).

    Raises:
        InvalidModel: the extractor failed, or returned something else, or numbers that are not finite.
    """
    name = extractor.card.name
    parts: list[Array] = []
    for start in range(0, len(content), _BATCH):
        batch = content[start : start + _BATCH]
        try:
            made = np.asarray(extractor.run(batch))
        except AigcError:
            raise
        except (Exception, SystemExit) as error:  # somebody's own extractor may raise anything
            raise InvalidModel(f"The extractor {name} failed: {reason(error).rstrip('.')}.") from error
        width = parts[0].shape[1] if parts else made.shape[-1] if made.ndim else 0
        if made.dtype != np.float32 or made.shape != (len(batch), width) or not width:
            raise InvalidModel(
                f"The extractor {name} returned {made.dtype} {made.shape} for {len(batch)} items;"
                f" it has to return float32 ({len(batch)}, K)."
            )
        if not np.isfinite(made).all():
            raise InvalidModel(f"The extractor {name} returned numbers that are not finite; use another one.")
        parts.append(made)
    return np.concatenate(parts)


def extract_cached(extractor: Extractor, part: Part) -> Features:
    """Return the features of a part of a data set, from the cache when they are there.

    The key is what makes them and what they are of: the extractor's `graph_sha256` and the part's fingerprint.
    """
    name = f"{extractor.card.graph_sha256}/{part.fingerprint}.npy"
    if (cached := _read(name, len(part))) is not None:
        return cached
    _log.info("features of %d items of %s", len(part), part.name)
    features = extract(extractor, part)
    try:
        path = _folder() / name
        make_folder(path.parent)
        remove_unused(_folder())
        with atomic_write(path) as temporary, open(temporary, "wb") as file:
            np.save(file, features, allow_pickle=False)
    except StorageError as error:  # the features are there all the same
        _log.warning("The features were not kept: %s", error)
    return features


def check_features(features: Features, what: str, extractor: Extractor, width: int) -> None:
    """Raise when features are not of the width of others, or all the same, so that nothing can be measured.

    Raises:
        InvalidModel: the extractor makes rows of another width for other items.
        InvalidData: the features are constant.
    """
    name = extractor.card.name
    if features.shape[1] != width:
        raise InvalidModel(f"The extractor {name} returned {width} features for some items, {features.shape[1]} else.")
    if not (features != features[0]).any():
        raise InvalidData(
            f"{what}: the extractor {name} sees no difference between the {len(features)} items, all features are"
            " constant. Use other data or another extractor."
        )


def _folder() -> Path:
    return cache_folder() / "features"


def _read(name: str, n: int) -> Features | None:
    """Return the features in a file of the cache, and mark it as used.

    None when it is not there, damaged, or of another number of items.
    """
    try:
        path = _folder() / name
        with open(path, "rb") as file:
            found = np.load(file, allow_pickle=False)
    except (OSError, *BROKEN):
        return None
    if not isinstance(found, np.ndarray) or found.dtype != np.float32 or found.ndim != 2 or len(found) != n:
        return None
    with suppress(OSError):  # a cache that can only be read
        os.utime(path)
    return found if np.isfinite(found).all() else None
