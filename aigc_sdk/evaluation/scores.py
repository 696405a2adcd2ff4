"""Scores: written into the card of a model file that is there already, which stays the same model."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from aigc_sdk.card import CARD_KEY, ModelCard
from aigc_sdk.files import atomic_pair
from aigc_sdk.runtime.safety import Verdict, check_model, read_model, trust


def add_scores(path: Path, scores: Iterable[Mapping[str, Any]]) -> ModelCard:
    """Write scores into the card inside a model file and the one beside it, and return the new card.

    A score takes the place of those of the same `metric` that are there. The graph is not touched: `graph_sha256`,
    the identity of the model, and its golden items stay; the sha256 of the file is another one.

    Args:
        path: a model file of the contract.
        scores: values that JSON has, each with its `metric`.

    Raises:
        InvalidModel: the file is broken, hostile or no model, or would not be one with these scores.
        StorageError: it cannot be read or written.
    """
    import onnx

    data = read_model(path)
    card = check_model(data, path.name)
    added = [dict(score) for score in scores]
    metrics = {score["metric"] for score in added}
    kept = [score for score in card.scores if score.get("metric") not in metrics]
    card = replace(card, scores=(*kept, *added))

    model = onnx.ModelProto.FromString(data)
    entry = next(entry for entry in model.metadata_props if entry.key == CARD_KEY)
    entry.value = card.to_json()
    written = bytes(model.SerializeToString(deterministic=True))
    card = check_model(written, path.name)
    with atomic_pair(path.with_suffix(".card.json"), path, asked=path) as (card_file, file):
        file.write_bytes(written)
        card_file.write_text(card.to_json(), encoding="utf-8")
    if Verdict.load(hashlib.sha256(data).hexdigest()).is_safe:  # nothing but the card has changed
        trust(written)
    return card
