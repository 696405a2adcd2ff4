"""sdk.evaluate: which items it compares, its errors, the cache of features, scores, and the report."""

import base64
import io
import json
import os
import re
import sys
from dataclasses import replace
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import PIL.Image
import pytest
from click.testing import CliRunner

import aigc_sdk as sdk
from aigc_image.data import load_data
from aigc_image.images import ImageOptions
from aigc_sdk import cli, errors
from aigc_sdk.card import DataSummary
from aigc_sdk.evaluator import Evaluator, Measured
from aigc_sdk.registry import Registry, default_registry
from test_files import remove_home
from tiny_model import write_tiny_model

SPLIT = {"validation_fraction": 0.1, "test_fraction": 0.3}


class Pixels:
    """An extractor without a network: the pixels, after whatever `change` does to them."""

    def __init__(self, change=lambda x: x, sha256="a" * 64):
        self.card = SimpleNamespace(name="pixels", graph_sha256=sha256, config={"resizing": "none at all"})
        self.change = change
        self.asked = []

    def run(self, content):
        self.asked.append(len(content))
        return self.change(content.reshape(len(content), -1).astype(np.float32) / 255)


@pytest.fixture(scope="session")
def images(digits_8x8):
    """scikit-learn's digits in random order, uint8 (1797, 8, 8, 1)."""
    return digits_8x8[0][np.random.default_rng(0).permutation(1797)]


@pytest.fixture
def own(tmp_path, images):
    """A model file whose card says that it was trained on these digits."""
    data = load_data(images)
    split = {part: len(rows) for part, rows in data.split(*SPLIT.values()).items()}
    summary = DataSummary(name="array", fingerprint=data.fingerprint, n=data.n, split=split)
    return write_tiny_model(tmp_path / "own.onnx", data=summary, config=SPLIT)


def evaluate(subject, reference, **options):
    return sdk.evaluate(subject, reference, **{"extractor": Pixels(), "metrics": ["recall"]} | options)


# --- which items are compared ---


def test_evaluate_against_the_models_own_data_uses_the_parts_of_its_split(own, images):
    report = evaluate(own, images, metrics=None)
    split = sdk.load(own).card.data.split
    assert [score.metric for score in report.scores] == ["copying", "frechet", "precision", "recall"]
    assert {(score.n_fake, score.n_real) for score in report.scores} == {(split["test"], split["test"])}
    assert report.protocol["n_train"] == split["train"]
    assert (report.protocol["reference_name"], report.protocol["train_name"]) == (
        "array (test part)",
        "array (train part)",
    )
    assert report.not_measured == {}


def test_evaluate_against_other_data_without_train_does_not_measure_copying(own, images):
    report = evaluate(own, images[:300], metrics=["copying", "recall"])
    assert [score.metric for score in report.scores] == ["recall"]
    assert report["recall"].n_real == 300 and report["recall"].baseline is None
    assert "give train=" in report.not_measured["copying"]


def test_evaluate_with_the_models_data_as_train_uses_its_train_part(own, images):
    other = images[:300, ::-1]
    report = evaluate(own, other, train=images, metrics=["copying"])
    assert report.protocol["n_train"] == sdk.load(own).card.data.split["train"]
    assert report["copying"].n_real == 300
    assert report["copying"].train == report.protocol["train"]


def test_evaluate_brings_the_reference_to_the_form_that_the_training_did(tmp_path, images):
    large = np.kron(images[:300, ..., 0], np.ones((1, 2, 2), np.uint8))
    path = write_tiny_model(tmp_path / "sized.onnx", config={"image_size": 8})
    small = load_data(large, ImageOptions(size=8)).images
    found, wanted = (evaluate(path, data, metrics=["frechet"])["frechet"] for data in (large, small))
    assert found == wanted and found.n_real == 300
    with pytest.raises(errors.InvalidData, match="bring them to one size"):
        evaluate(write_tiny_model(tmp_path / "plain.onnx"), large)


def test_evaluate_with_n_draws_as_many_real_items_by_seed(images):
    first, again, other = (
        evaluate(images[:500], images[500:1100], n=200, seed=seed, metrics=["frechet"])["frechet"] for seed in (1, 1, 2)
    )
    assert first == again
    assert (first.n_real, first.n_fake) == (200, 200)
    assert first.value != other.value and first.protocol == other.protocol


def test_evaluate_takes_contents_and_controls_of_a_model(tiny, images):
    made = tiny.generate(100, seed=0, label="owl")
    by_model = evaluate(tiny, images, n=100, label="owl", metrics=["frechet"])
    by_contents = evaluate(made, images, metrics=["frechet"])
    assert by_model["frechet"].value == by_contents["frechet"].value
    assert by_model.protocol["controls"] == {"label": "'owl'"}
    assert by_contents.protocol["model"] == by_model.protocol["model"] and by_contents.subject == "contents"


def test_evaluate_records_the_model_of_contents_that_one_made(tiny, tmp_path, images):
    mirror = sdk.load(write_tiny_model(tmp_path / "mirror.onnx", task="mirror"))
    made, others = tiny.generate(30, seed=0) + tiny.generate(30, seed=1, label="owl"), mirror.generate(30, seed=2)
    card = tiny.card
    origin = {"name": "tiny", "version": "1.0", "task": "generate", "graph_sha256": card.graph_sha256}
    for given, wanted in (
        (made, origin),
        (list(made), origin),
        (others, {**origin, "task": "mirror"}),
        (made + others, None),
        (made.to_numpy(), None),
    ):
        assert evaluate(given, images[:300]).protocol["model"] == wanted


def test_evaluate_finds_a_memorising_model_and_not_an_honest_one(images):
    train, held_out, honest = images[:600], images[600:1200], images[1200:]
    memorised = train[np.random.default_rng(0).integers(0, 600, 600)]
    caught = evaluate(memorised, held_out, train=train, metrics=["copying"])["copying"]
    clean = evaluate(honest, held_out, train=train, metrics=["copying"])["copying"]
    assert caught.details["p"] < 0.001 < 0.05 < clean.details["p"]


def test_evaluate_finds_the_extractor_for_28_pixels():
    squares = np.random.default_rng(0).integers(0, 256, (2, 60, 28, 28, 1)).astype(np.uint8)
    score = sdk.evaluate(squares[0], squares[1], metrics=["precision"])["precision"]
    assert score.extractor == "digits-features" and score.resizing == "none"


# --- errors ---


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"metrics": ["recal"]}, errors.UnknownName, "Did you mean 'recall'"),
        ({"metrics": "recall"}, errors.InvalidRequest, "metrics is 'recall'; give a list of names"),
        ({"metrics": []}, errors.InvalidRequest, r"metrics is \[\]; give a list of names, some of copying, density"),
        ({"metrics": 3}, errors.InvalidRequest, "metrics is 3; give a list of names, some of copying, density"),
        ({"metrics": [["recall"]]}, errors.InvalidRequest, r"metrics is \[\['recall'\]\]; give a list of names"),
        ({"metrics": ["recall", None]}, errors.InvalidRequest, r"metrics is \['recall', None\]; give a list of names"),
        ({"n": 0}, errors.InvalidRequest, "n is 0"),
        ({"n": 601}, errors.InvalidRequest, "from 1 to 600"),
        ({"n": True}, errors.InvalidRequest, "n is True"),
        ({"seed": -1}, errors.InvalidRequest, "seed is -1"),
        ({"label": 3}, errors.InvalidRequest, "label is for a model"),
        ({"n": 19}, errors.InvalidData, "recall needs at least 20 generated"),
        ({"extractor": 3}, errors.InvalidRequest, "extractor is 3; give the name or the path of a measure"),
        ({"extractor": ""}, errors.InvalidRequest, "extractor is ''; give the name or the path of a measure"),
        ({"train": 3}, errors.InvalidData, "train: data is of type int; give a path"),
        ({"train": ""}, errors.InvalidRequest, "train: data is ''; give a path"),
        ({"extractor": "no-such-one"}, errors.UnknownName, "no-such-one"),
    ],
)
def test_evaluate_with_a_wrong_argument_says_what_is_wrong(images, options, error, words):
    with pytest.raises(error, match=words):
        evaluate(images[:600], images[600:1200], **options)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        (np.zeros((99, 28, 28, 1), np.uint8), r"\(28, 28, 1\), the generated ones \(8, 8, 1\)"),
        (np.zeros((99, 8, 8, 3), np.uint8), r"\(8, 8, 3\), the generated ones \(8, 8, 1\)"),
        ("no-such-folder", "reference: There is no data at"),
        (["a", "text"], "reference: data is of type list"),
        (None, "reference: data is of type NoneType; give a path"),
        (np.zeros((3, 8, 8, 1), np.uint8), "reference: .* all the same"),
    ],
)
def test_evaluate_with_a_reference_of_another_kind_says_so(tiny, reference, words):
    if isinstance(reference, np.ndarray) and len(reference) > 3:
        reference[1:] = 255  # two different images at least
    with pytest.raises(errors.InvalidData, match=words):
        evaluate(tiny, reference)


@pytest.mark.parametrize(
    ("contents", "words"),
    [
        ([1], r"The contents are \[1\]; give some of what sdk.generate makes"),
        (sdk.Contents([]), "give some of what sdk.generate makes"),
        (np.zeros((3, 8, 8, 1)), "The contents are an array float64"),
        (None, r"is None; give a model \(its name"),
    ],
)
def test_evaluate_with_contents_of_another_kind_says_so(images, contents, words):
    with pytest.raises(errors.InvalidRequest, match=words):
        evaluate(contents, images)


@pytest.mark.parametrize("name", ["labl", "deadline_s", "batch_size", "task", "device"])
def test_evaluate_with_something_else_than_a_control_says_so(tiny, name):
    with pytest.raises(errors.UnknownName, match=f"no control of tiny '{name}'"):
        evaluate(tiny, "no-data-is-read", **{name: 3})


def test_evaluate_with_too_few_reference_items_says_so(tiny, images):
    with pytest.raises(
        errors.InvalidData, match="recall needs at least 20 generated and as many held-out items; there"
    ):
        evaluate(tiny, images[:19])


def test_evaluate_with_too_few_items_for_what_is_not_measured_anyway_goes_on(tiny, images):
    report = evaluate(tiny, images[:30], metrics=["recall", "copying"])
    assert [score.metric for score in report.scores] == ["recall"] and "copying" in report.not_measured
    with pytest.raises(errors.InvalidData, match="copying needs at least 50"):
        evaluate(tiny, images[:30], metrics=["recall", "copying"], train=images[30:])


def test_evaluate_with_too_few_items_measures_the_metrics_that_have_enough(tiny, images):
    report = evaluate(tiny, images[:19], metrics=None, train=images[30:])
    assert [score.metric for score in report.scores] == ["frechet"]
    words = "The metric recall needs at least 20 generated and as many held-out items; there are 19 and 19"
    assert report.not_measured.keys() == {"copying", "precision", "recall"} and report.not_measured["recall"] == words
    for train in (None, images[30:]):
        with pytest.raises(errors.InvalidData, match=r"frechet needs at least 10 .* are 9 and 9, and no other can be"):
            evaluate(tiny, images[:9], metrics=None, train=train)


def test_evaluate_with_the_reference_as_train_says_so(images):
    with pytest.raises(errors.InvalidData, match="are the same data"):
        evaluate(images[:100], images[100:300], train=images[100:300])


@pytest.mark.parametrize(
    "config", [{}, {"validation_fraction": "x", "test_fraction": 0.1}, SPLIT | {"test_fraction": 0}]
)
def test_evaluate_with_a_card_that_hides_its_split_says_so(tmp_path, images, config):
    data = load_data(images)
    summary = DataSummary(name="array", fingerprint=data.fingerprint, n=data.n, split={"train": 1200, "test": 597})
    path = write_tiny_model(tmp_path / "own.onnx", data=summary, config=config)
    with pytest.raises(errors.InvalidData, match="is what tiny was trained on"):
        evaluate(path, images)


def test_evaluate_against_own_data_without_a_test_part_says_so(tmp_path, images):
    data = load_data(images)
    config = SPLIT | {"test_fraction": 0.0}
    split = {part: len(rows) for part, rows in data.split(*config.values()).items()}
    summary = DataSummary(name="array", fingerprint=data.fingerprint, n=data.n, split=split)
    path = write_tiny_model(tmp_path / "own.onnx", data=summary, config=config)
    with pytest.raises(errors.InvalidData, match="its test part is empty"):
        evaluate(path, images)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        (lambda x: x * np.nan, errors.InvalidModel, "not finite"),
        (lambda x: x[:-1], errors.InvalidModel, "returned float32"),
        (lambda x: x.astype(np.float64), errors.InvalidModel, "returned float64"),
        (lambda x: x[:, 0], errors.InvalidModel, "returned float32"),
        (lambda x: np.float32(1), errors.InvalidModel, r"returned float32 \(\)"),
        (lambda x: x[:, :0], errors.InvalidModel, "returned float32"),
        (lambda x: np.ones_like(x), errors.InvalidData, "all features are constant"),
        (lambda x: x[:, : 3 if len(x) == 60 else 5], errors.InvalidModel, "3 features"),
        (lambda x: 1 / 0, errors.InvalidModel, "The extractor pixels failed: ZeroDivisionError: division by zero"),
        (lambda x: sys.exit(3), errors.InvalidModel, "The extractor pixels failed: SystemExit: 3"),
        (lambda x: [[1], [1, 2]], errors.InvalidModel, "The extractor pixels failed: ValueError"),
    ],
)
def test_evaluate_with_a_wrong_extractor_says_what_is_wrong(images, change, error, words):
    with pytest.raises(error, match=words):
        evaluate(images[:60], images[600:700], train=images[800:], extractor=Pixels(change))


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", None, "name on the extractor's card is None; it has to be a text"),
        ("name", "a\ud800", "name on the extractor's card is .*; it has to be a text of one line"),
        ("graph_sha256", None, "graph_sha256 on the extractor's card is None; it has to be 64 hexadecimal digits"),
        ("graph_sha256", "../../x", "graph_sha256 on the extractor's card is '../../x'; it has to be 64"),
        ("graph_sha256", "a" * 64 + "\n", "it has to be 64 hexadecimal digits"),
        ("config", None, "config on the extractor's card is None; it has to be a mapping"),
    ],
)
def test_evaluate_with_a_wrong_card_of_an_extractor_says_what_is_wrong(images, field, value, words):
    extractor = Pixels()
    setattr(extractor.card, field, value)
    with pytest.raises(errors.InvalidRequest, match=words):
        evaluate(images[:60], images[600:700], extractor=extractor)
    extractor.card = None
    with pytest.raises(errors.InvalidRequest, match="name on the extractor's card is None"):
        evaluate(images[:60], images[600:700], extractor=extractor)


@pytest.mark.parametrize("given", [None, "", 3])
def test_measure_of_no_name_says_so(images, given):
    with pytest.raises(errors.InvalidRequest, match=f"measure is {given!r}; give the name or the path of a measure"):
        sdk.measure(given, images[:3])


def test_evaluate_with_identical_contents_measures_how_bad_they_are(images):
    report = evaluate(images[:1].repeat(100, 0), images[600:700], metrics=["recall", "precision"])
    assert report["recall"].value < 0.2


class Broken(Evaluator):
    direction, explanation = "lower", "raises"

    def measure(self, samples, seed):
        return {
            30: lambda: Measured(float("nan"), (0, 0)),
            31: lambda: 1 / 0,
            32: sys.exit,
            33: lambda: Measured(0.0, (0, 0), details={"p": float("inf")}),
            34: lambda: Measured(0.0, (0, 0, 0)),
            35: lambda: {"value": 1},
        }[len(samples.fake)]()


class Numpy(Broken):
    def measure(self, samples, seed):
        one = np.float32(1)
        return Measured(one, np.array([0, 1], np.float32), one, details={"p": one})


class Sideways(Broken):
    direction = "sideways"


class Directionless(Evaluator):
    def measure(self, samples, seed):
        return Measured(0.0, (0, 0))


class Greedy(Broken):
    min_items = "many"


class Leaves(Broken):
    def __init__(self):
        sys.exit("not today")


class Keeps(Broken):
    def measure(self, samples, seed):
        Keeps.samples = samples
        return Measured(0.0, (0, 0))


@pytest.fixture
def metrics(monkeypatch):
    """Return a function that makes metrics of these classes the only ones besides recall."""

    def install(*targets):
        built_in = default_registry().find("metric", "recall")
        specs = [sdk.EvaluatorSpec(name=each.lower(), target=f"test_evaluation:{each}") for each in targets]
        registry = Registry([])
        plugin = replace(default_registry().plugins[0], specs=[("metric", spec) for spec in [built_in, *specs]])
        registry.plugins = [plugin]
        monkeypatch.setattr("aigc_sdk.evaluation.runner.default_registry", lambda: registry)

    return install


@pytest.mark.parametrize(
    ("n", "words"),
    [
        (30, "failed: ValueError: it returned"),
        (31, "failed: ZeroDivisionError"),
        (32, "failed: SystemExit"),
        (33, "failed: ValueError: it returned"),
        (34, "failed: ValueError: too many values"),
        (35, "failed: AttributeError"),
    ],
)
def test_evaluate_with_a_metric_that_fails_measures_the_others_and_names_it(metrics, images, n, words):
    metrics("Broken")
    with pytest.raises(errors.PluginError, match=f"The metric 'broken' {words}"):
        evaluate(images[:n], images[600:700], metrics=["recall", "broken"])
    report = evaluate(images[:n], images[600:700], metrics=None)
    assert [score.metric for score in report.scores] == ["recall"]
    assert words in report.not_measured["broken"] and words in report.to_html()


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("Sideways", "cannot start: TypeError: its direction is 'sideways'"),
        ("Directionless", "cannot start: AttributeError: .*direction"),
        ("Greedy", "cannot start: TypeError: its min_items is 'many'"),
        ("Leaves", "cannot start: SystemExit: not today"),
        ("Evaluator", "cannot start: TypeError: .*abstract"),
        ("replace", "cannot be loaded from .*: TypeError: .* is no subclass of aigc_sdk.evaluator.Evaluator"),
        ("Nowhere", "cannot be loaded from .*: AttributeError"),
    ],
)
def test_evaluate_with_a_metric_that_cannot_start_measures_the_others_and_names_it(metrics, images, target, words):
    metrics(target)
    with pytest.raises(errors.PluginError, match=words):
        evaluate(images[:30], images[600:700], metrics=[target.lower()])
    report = evaluate(images[:30], images[600:700], metrics=None)
    assert [score.metric for score in report.scores] == ["recall"]
    assert re.search(words, report.not_measured[target.lower()]) and "not measured" in report.to_html()


def test_evaluate_with_a_metric_that_returns_numpys_numbers_gives_a_report_that_can_be_saved(metrics, images):
    metrics("Numpy")
    report = evaluate(images[:30], images[600:700], metrics=["numpy"])
    values = json.loads(report.to_json())["scores"][0]
    assert (values["value"], values["interval"], values["baseline"], values["details"]) == (1, [0, 1], 1, {"p": 1})
    assert "numpy" in report.to_html()


def test_evaluate_gives_a_metric_real_and_training_items_in_random_order(metrics, images):
    metrics("Keeps")
    extractor = Pixels(lambda x: x * 255)
    real, train = (
        np.unique(part, axis=0) for part in (images[600:800], images[800:])
    )  # sorted, as folders are by class
    report, again = (
        evaluate(images[: len(real)], real, train=train, metrics=["keeps"], extractor=extractor) for _ in range(2)
    )
    samples, ours = Keeps.samples, [part.reshape(len(part), -1) for part in (real, train)]
    for found, given in zip((samples.real, samples.train), ours, strict=True):
        assert np.array_equal(np.unique(found, axis=0), given) and not np.array_equal(found, given)
    assert np.array_equal(report.pictures.real.reshape(-1, 64), samples.real[:64])
    assert np.array_equal(report.pictures.real, again.pictures.real)


# --- the cache of features ---


def test_features_of_data_are_made_once(images):
    first, second, other = Pixels(), Pixels(), Pixels(sha256="b" * 64)
    reports = [
        evaluate(images[:100], images[600:800], train=images[800:], extractor=each) for each in (first, second, other)
    ]
    assert sorted(first.asked) == sorted(other.asked) == [100, 100, 997]
    assert second.asked == [100]
    assert reports[0].scores == reports[1].scores


@pytest.mark.parametrize("damage", [b"", b"rubbish", "objects", "rows"])
def test_damaged_cached_features_are_made_again(images, tmp_path, monkeypatch, damage):
    monkeypatch.setenv("AIGC_SDK_CACHE", str(tmp_path))
    wanted = evaluate(images[:100], images[600:800])
    (path,) = tmp_path.rglob("*.npy")
    if damage == "objects":
        np.save(path, np.array([{}], object), allow_pickle=True)
    elif damage == "rows":
        np.save(path, np.zeros((3, 64), np.float32))
    else:
        path.write_bytes(damage)
    assert evaluate(images[:100], images[600:800]).scores == wanted.scores


def test_evaluate_without_a_writable_cache_goes_on(images, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("AIGC_SDK_CACHE", str(tmp_path / "file"))
    assert evaluate(images[:100], images[600:800])["recall"].value > 0
    assert "not kept" in caplog.text


def test_evaluate_without_a_place_for_a_cache_goes_on(images, monkeypatch, caplog):
    remove_home(monkeypatch)
    assert evaluate(images[:100], images[600:800])["recall"].value > 0
    assert "not kept: There is no home folder" in caplog.text


def test_features_that_no_evaluation_used_for_long_are_removed_when_others_are_made(images, tmp_path, monkeypatch):
    monkeypatch.setenv("AIGC_SDK_CACHE", str(tmp_path))
    first, second, third = images[600:800], images[800:1000], images[1000:1200]
    for data in (first, second):
        evaluate(images[:100], data)
    for path in tmp_path.rglob("*.npy"):
        os.utime(path, (0, 0))
    evaluate(images[:100], second)
    (used,) = (path for path in tmp_path.rglob("*.npy") if path.stat().st_mtime)
    evaluate(images[:100], third)
    left = list(tmp_path.rglob("*.npy"))
    assert used in left and len(left) == 2


# --- scores ---


def score_of(**changes):
    values = {"metric": "frechet", "value": 2.0, "direction": "lower", "interval": (1.5, 2.5), "n_real": 9, "n_fake": 9}
    values |= {"extractor": "x", "extractor_sha256": "a" * 64, "resizing": "none", "reference": "r" * 64, "seed": 0}
    return sdk.Score(**values | changes)


def test_scores_of_one_protocol_compare():
    score, far, near = score_of(), score_of(value=9.0, interval=(8, 10)), score_of(value=2.2, interval=(2, 3), seed=1)
    assert score < near < far and far > score and score <= near and near >= score
    assert (score.compare(far), far.compare(score), score.compare(near)) == ("better", "worse", "undecided")
    higher = [replace(each, direction="higher") for each in (score, far)]
    assert higher[0].compare(higher[1]) == "worse"


@pytest.mark.parametrize(
    "changes",
    [
        {"metric": "recall"},
        {"extractor_sha256": "b" * 64},
        {"resizing": "x"},
        {"reference": "s" * 64},
        {"train": "t"},
        {"n_fake": 8},
    ],
)
def test_scores_of_other_protocols_do_not_compare(changes):
    for compare in (lambda a, b: a < b, lambda a, b: a >= b, lambda a, b: a.compare(b)):
        with pytest.raises(errors.InvalidRequest, match=f"differ in {next(iter(changes))} "):
            compare(score_of(), score_of(**changes))


def test_score_and_something_else_do_not_compare():
    with pytest.raises(TypeError):
        _ = score_of() < 3
    with pytest.raises(errors.InvalidRequest, match="cannot be compared with 3; give another score"):
        score_of().compare(3)


# --- the report ---


class Page(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.tags, self.sources, self.text = [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.sources += [value for name, value in attrs if name in ("src", "href")]

    def handle_data(self, data):
        self.text.append(data)

    def pictures(self):
        assert all(source.startswith("data:image/") for source in self.sources)
        return [base64.b64decode(source.partition(",")[2]) for source in self.sources]


@pytest.fixture
def report(images):
    return evaluate(images[:200], images[600:800], train=images[800:1600], metrics=None)


def test_report_save_writes_figures_and_a_page_that_needs_nothing_else(report, tmp_path, images):
    path = report.save(tmp_path / "out")
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["report.html", "report.json"]
    values = json.loads((tmp_path / "out" / "report.json").read_text())
    assert [score["metric"] for score in values["scores"]] == ["copying", "frechet", "precision", "recall"]
    assert values["scores"][3]["interval"] == list(report["recall"].interval)
    html = path.read_text()
    assert not re.search(r"https?:|<script|<link|@import|url\(", html)
    pictures = [PIL.Image.open(io.BytesIO(data)) for data in Page(html).pictures()]
    assert len(pictures) == 2 + len(report.pictures.pairs)
    top_left = np.asarray(pictures[0])[: 8 * 8 : 8, : 8 * 8 : 8]
    assert np.array_equal(top_left, images[0, ..., 0])


def test_report_pairs_show_the_copies_first(images):
    fake = images[600:700].copy()
    fake[70] = images[5]
    pair = evaluate(fake, images[700:900], train=images[:600]).pictures.pairs[0]
    assert pair.distance == pytest.approx(0, abs=1e-3)
    assert np.array_equal(pair.fake, images[5]) and np.array_equal(pair.train, images[5])


def test_report_escapes_what_comes_from_cards_and_data(report):
    evil = "<script>alert(1)</script><img src=x onerror=alert(1)>&\"'"
    score = replace(report.scores[0], verdict=evil, metric=evil)
    hostile = replace(
        report,
        subject=evil,
        scores=(score,),
        not_measured={evil: evil},
        explanations={evil: evil},
        protocol=report.protocol | {"extractor": evil, "reference_name": evil, evil: {evil: evil}},
    )
    harmless = Page(report.to_html())
    page = Page(hostile.to_html())
    assert "script" not in page.tags
    assert page.tags.count("img") == harmless.tags.count("img")
    assert "".join(page.text).count(evil) >= 8


def run_folder(tmp_path, own, lines):
    folder = tmp_path / "run"
    folder.mkdir()
    own.rename(folder / "model.onnx")
    (folder / "run.json").write_text("{}")
    (folder / "metrics.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder


LINES = [
    '{"step": 1, "epoch": 1, "loss": 3.0, "learning_rate": 0.1}',
    '{"step": 2, "loss": 2.0, "validation": {"loss": 2.5, "$kl_": 1}}',
    "[1]",
    f'{{"step": 3, "loss": NaN, "infinite": Infinity, "huge": 1e308, "large": {10**400}, "d\\ud800": 1}}',
    '{"step": 4, "loss": 1, "infinite": -Infinity, "huge": -1e308, "large": 1}',
    '{"step": NaN, "loss": 1}',
    '{"step": 3, "lo',
]


@pytest.mark.parametrize("named", [lambda folder: folder, lambda folder: str(folder / "model.onnx")])
def test_report_of_a_run_folder_and_of_a_file_in_it_draws_its_losses(own, images, tmp_path, named):
    html = evaluate(named(run_folder(tmp_path, own, LINES)), images, metrics=["frechet"]).to_html()
    curves = Page(html).pictures()[-1]
    assert curves.startswith(b"<?xml") and b"<svg" in curves


def test_report_of_a_file_beside_other_losses_and_of_a_loaded_model_draws_none(own, images, tmp_path):
    folder = run_folder(tmp_path, own, LINES)
    loaded = evaluate(sdk.load(folder), images, metrics=["frechet"])
    (folder / "run.json").unlink()
    for report in (loaded, evaluate(folder / "model.onnx", images, metrics=["frechet"])):
        assert "<h2>Training</h2>" not in report.to_html()


def test_report_of_a_run_folder_without_matplotlib_says_what_to_install(own, images, tmp_path, monkeypatch):
    report = evaluate(run_folder(tmp_path, own, LINES), images, metrics=["frechet"])
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(errors.MissingPackage, match=r"pip install 'aigc-sdk\[evaluate\]'"):
        report.save(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "lines",
    [[], ["rubbish", "3", '{"step": "x"}', '{"step": 1, "validation": 3}', f'{{"step": {10**400}, "loss": 1}}']],
)
def test_report_of_a_run_folder_without_losses_has_no_curves(own, images, tmp_path, lines):
    html = evaluate(run_folder(tmp_path, own, lines), images, metrics=["frechet"]).to_html()
    assert "<h2>Training</h2>" not in html


def test_report_shows_its_scores_in_a_line_and_in_a_table(report):
    evil = replace(report, subject="<b>", not_measured={"<i>": "<script>"}, scores=report.scores[3:])
    value = f"{report['recall'].value:.4g}"
    assert repr(report).startswith("<Report of contents: copying ") and len(repr(report)) < 200
    assert repr(evil) == f"<Report of <b>: recall {value}>"
    assert repr(replace(report, scores=())) == "<Report of contents: no scores>"
    table = Page(evil._repr_html_())
    assert set(table.tags) == {"table", "caption", "tr", "th", "td"}
    assert {"recall", value, "higher", "Evaluation of <b>", "<i>", "not measured: <script>"} <= set(table.text)


def test_reports_compare_by_what_they_say(report):
    assert report == replace(report, pictures=replace(report.pictures, fake=report.pictures.real))
    assert report != replace(report, scores=())


def test_report_without_the_metric_says_which_there_are(report):
    with pytest.raises(errors.UnknownName, match="There are: copying, frechet, precision, recall"):
        report["fid"]


# --- the command line ---


@pytest.fixture
def aigc(monkeypatch):
    """Run `aigc evaluate`, with pixels in the place of the extractor for this size."""
    monkeypatch.setattr("aigc_sdk.evaluation.features.open_measure", lambda given, shape: Pixels())

    def run(*arguments):
        return CliRunner().invoke(cli.app, ["evaluate", *map(str, arguments)], catch_exceptions=False)

    return run


def test_cli_prints_scores_and_writes_the_page(aigc, own, images, tmp_path):
    np.save(tmp_path / "other.npy", images[:200, ::-1])
    page = tmp_path / "page.html"
    done = aigc(own, "--reference", tmp_path / "other.npy", "--metrics", "recall, copying", "--report", page)
    assert done.exit_code == 0
    assert "recall" in done.stdout and "not measured" in done.stdout and "frechet" not in done.stdout
    assert page.read_text().startswith("<!doctype html>")
    figures = json.loads((tmp_path / "page.json").read_text())
    assert [score["metric"] for score in figures["scores"]] == ["recall"] and "created" in figures["protocol"]


@pytest.mark.parametrize("name", ["page", "page.json", "page.txt"])
def test_cli_refuses_another_page_than_html_before_it_begins(aigc, tmp_path, name):
    with pytest.raises(errors.InvalidRequest, match=rf"--report is '.*{name}'; give a path that ends in \.html"):
        aigc("no-such-model", "--reference", "no-such-data", "--report", tmp_path / name)


def test_cli_json_is_the_reports(aigc, own, images, tmp_path):
    np.save(tmp_path / "other.npy", images[:200, ::-1])
    np.save(tmp_path / "train.npy", images)
    options = ["--train", tmp_path / "train.npy", "--metrics", "copying", "-n", 60, "--seed", 3, "-c", "label=owl"]
    done = aigc(own, "--reference", tmp_path / "other.npy", *options, "--json")
    values = json.loads(done.stdout)
    score = values["scores"][0]
    assert (score["metric"], score["n_fake"], score["seed"]) == ("copying", 60, 3)
    assert values["protocol"]["controls"] == {"label": "'owl'"}
