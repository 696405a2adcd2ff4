"""Scores: written into a file's card without changing the model."""

import hashlib
import json

import numpy as np
import pytest

import aigc_sdk as sdk
from aigc_sdk.errors import InvalidModel, StorageError
from aigc_sdk.evaluation.scores import add_scores
from aigc_sdk.generation import selftest
from aigc_sdk.runtime.safety import check_model
from tiny_model import make_card, make_graph, to_bytes, write_tiny_model

RECALL = {"metric": "recall", "value": 0.75, "interval": (0.7, 0.8), "n_fake": 100, "details": {"k": 3}}


@pytest.fixture
def path(tmp_path):
    old = ({"metric": "kl", "value": 12.5, "split": "validation"}, {"metric": "recall", "value": 0.1})
    return write_tiny_model(tmp_path / "tiny.onnx", scores=old)


def test_add_scores_replaces_those_of_the_same_metric_and_keeps_the_rest(path):
    card = add_scores(path, [RECALL, {"metric": "frechet", "value": 3.0}])
    assert [score["metric"] for score in card.scores] == ["kl", "recall", "frechet"]
    assert card.scores[1] == json.loads(json.dumps(RECALL))
    assert sdk.load(path).card == card
    assert path.with_suffix(".card.json").read_text(encoding="utf-8") == card.to_json()


def test_add_scores_leaves_the_model_what_it_is(path):
    before = sdk.load(path)
    made = before.generate(4, seed=7, label="owl")
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    card = add_scores(path, [RECALL])
    assert hashlib.sha256(path.read_bytes()).hexdigest() != sha256
    assert card.graph_sha256 == before.card.graph_sha256 and card.golden == before.card.golden
    assert sdk.generate(path, 4, seed=7, label="owl") == made
    assert selftest(path)[0]
    assert check_model(path.read_bytes(), "tiny.onnx") == card


def test_add_scores_twice_gives_the_same_bytes(path):
    add_scores(path, [RECALL])
    once = path.read_bytes()
    add_scores(path, [RECALL])
    assert path.read_bytes() == once


def test_add_scores_to_a_saved_item_changes_nothing_of_its_reproducing(path, tmp_path):
    saved = sdk.generate(path, seed=7)[0].save(tmp_path / "item.png")
    add_scores(path, [RECALL])
    assert np.array_equal(sdk.reproduce(saved, model=path)[0].data, sdk.generate(path, seed=7)[0].data)


@pytest.mark.parametrize("score", [{"metric": "x", "value": float("nan")}, {"metric": "x" * 2**20}])
def test_add_scores_that_no_card_can_hold_leave_the_file(path, score):
    before = path.read_bytes()
    with pytest.raises(InvalidModel):
        add_scores(path, [score])
    assert path.read_bytes() == before
    assert [each.name for each in path.parent.iterdir()] == ["tiny.onnx"]


def test_add_scores_to_what_is_no_model_raises(tmp_path):
    with pytest.raises(StorageError, match="Cannot read"):
        add_scores(tmp_path / "missing.onnx", [RECALL])
    graph = make_graph()
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(to_bytes(graph, make_card(graph, graph_sha256="0" * 64)))
    with pytest.raises(InvalidModel, match="graph_sha256 differs"):
        add_scores(broken, [RECALL])
