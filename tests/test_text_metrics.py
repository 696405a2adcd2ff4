"""The metrics of texts: against plain definitions, on planted copies, and through sdk.evaluate."""

import numpy as np
import pytest
from click.testing import CliRunner

import aigc_sdk as sdk
from aigc_metrics.runs import found
from aigc_metrics.texts import WINDOW, NGrams, Verbatim, characters_of, longest_run
from aigc_sdk import cli
from aigc_sdk.errors import InvalidData, InvalidRequest
from aigc_sdk.evaluator import ItemSamples

LETTERS = list("abcdefghijklmnopqrstuvwxyz ")


def random_texts(n, size, seed, letters=LETTERS):
    rng = np.random.default_rng(seed)
    return tuple("".join(rng.choice(letters, rng.integers(size // 2, size))) for _ in range(n))


def stands_in(window, texts):
    return any(window in text for text in texts)


@pytest.mark.parametrize("size", [1, 2, 3, 5, 9])
@pytest.mark.parametrize("chunk", [2**22, 7])
def test_found_agrees_with_a_search_for_every_window(monkeypatch, size, chunk):
    monkeypatch.setattr("aigc_metrics.runs._CHUNK", chunk)
    asked, corpus = (random_texts(20, 12, seed, list("ab春")) for seed in (0, 1))
    wanted = [
        stands_in(text[i : i + size], corpus) if i + size <= len(text) else False
        for text in asked
        for i in range(len(text))
    ]
    assert found(characters_of(asked), characters_of(corpus), size).tolist() == wanted


def test_found_knows_texts_that_are_empty():
    assert found(characters_of(["", "a"]), characters_of(["", ""]), 1).tolist() == [False]
    assert found(characters_of([""]), characters_of(["a"]), 1).tolist() == []


def test_longest_run_agrees_with_every_run():
    asked, corpus = random_texts(8, 30, 2, list("abc")), random_texts(8, 30, 3, list("abc"))
    runs = {text[i:j] for text in asked for i in range(len(text)) for j in range(i + 1, len(text) + 1)}
    longest = max(len(run) for run in runs if stands_in(run, corpus))
    run = longest_run(asked, characters_of(corpus))
    assert len(run) == longest and stands_in(run, corpus) and stands_in(run, asked)
    assert longest_run(["xyz", ""], characters_of(corpus)) == longest_run([], characters_of(corpus)) == ""


def test_verbatim_is_the_share_of_windows():
    train, real, fake = random_texts(30, 200, 0), random_texts(30, 200, 1), random_texts(20, 200, 2)
    mixed = (*fake[:18], train[0], fake[18][:50] + train[1][:60], "short", train[2][:20])
    windows = [text[i : i + WINDOW] for text in mixed for i in range(len(text) - WINDOW + 1)]
    hits = sum(stands_in(window, train) for window in windows)
    measured = Verbatim().measure(ItemSamples(mixed, real, train), 0)
    assert measured.value == pytest.approx(hits / (len(windows) + 2))  # the two short ones are a window each
    assert measured.interval[0] <= measured.value <= measured.interval[1]
    assert measured.details["longest_run"] == len(train[0]) and repr(train[0][:10])[:-1] in measured.verdict
    assert measured.details["held_out"] == 0


@pytest.mark.parametrize(("size", "letters"), [(16, LETTERS), (200, LETTERS), (200, list("ab"))])
def test_verbatim_catches_copies_alone(size, letters):
    train, real, fake = (random_texts(300, size, seed, letters) for seed in range(3))
    copies = (*np.random.default_rng(3).choice(train, 20), *fake[20:])
    assert Verbatim().measure(ItemSamples(copies, real, train), 0).verdict.startswith("It copies")
    assert Verbatim().measure(ItemSamples(fake, real, train), 0).verdict.startswith("No sign of copying")


def test_short_texts_that_any_model_makes_are_no_copies():
    kinds = ["Anna", "Ben", "Carla", "Dora"]
    rng = np.random.default_rng(0)
    train, real, fake = (tuple(rng.choice(kinds, n)) for n in (400, 100, 100))
    measured = Verbatim().measure(ItemSamples(fake, real, train), 0)
    assert measured.value == 1 and measured.verdict.startswith("No sign of copying")


def test_ngrams_agree_with_scipy():
    from scipy.spatial.distance import jensenshannon

    real, fake, train = random_texts(40, 60, 0), random_texts(40, 60, 1, LETTERS[:9]), random_texts(40, 60, 2)
    grams = [[text[i : i + 3] for text in texts for i in range(len(text) - 2)] for texts in (real, fake)]
    kinds = sorted({*grams[0], *grams[1]})
    p, q = ([each.count(kind) for kind in kinds] for each in grams)
    measured = NGrams().measure(ItemSamples(fake, real, train, train), 0)
    assert measured.value == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    assert measured.interval[0] < measured.value < measured.interval[1]
    assert measured.baseline is not None and measured.baseline < measured.interval[0]
    same = NGrams().measure(ItemSamples(real, real), 0)
    assert same.value == 0 and same.baseline is None


def test_evaluate_measures_a_model_of_texts(trained_rnn, names, tmp_path):
    report = sdk.evaluate(trained_rnn.folder, names, seed=3)
    assert {score.metric for score in report.scores} == {"verbatim", "ngrams"} and not report.not_measured
    assert report.scores == sdk.evaluate(trained_rnn.folder, names, seed=3).scores
    score = report["ngrams"]
    assert score.n_fake == score.n_real == trained_rnn.record.data.split["test"] and score.extractor == "none"
    page = report.save(tmp_path).read_text()
    made = str(sdk.generate(trained_rnn.folder, seed=3)[0])
    assert f"<pre>{made}</pre>" in page and "as they are" in page


def test_evaluate_measures_texts_that_were_made():
    real, train = random_texts(50, 80, 0), random_texts(50, 80, 1)
    report = sdk.evaluate(list(train[:20]), list(real), train=list(train))
    assert report["verbatim"].value == 1 and "It copies" in report["verbatim"].verdict
    assert report["verbatim"].train is not None and report["verbatim"].n_fake == 20
    alone = sdk.evaluate(["<b>bold</b>", *train], list(real), n=21)
    assert "nobody said" in alone.not_measured["verbatim"] and "&lt;b&gt;bold" in alone.to_html()


def test_evaluate_reads_a_stream_whole(tmp_path):
    text = "".join(random_texts(400, 60, 0))
    (tmp_path / "whole.txt").write_text(text)
    (tmp_path / "other.txt").write_text("".join(random_texts(2000, 60, 1)))
    across = [text[4096 - 20 - i : 4096 + 20] for i in range(10)]  # from one piece into the next
    report = sdk.evaluate(across, tmp_path / "other.txt", train=tmp_path / "whole.txt", metrics=["verbatim"])
    assert report["verbatim"].value == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"metrics": ["frechet"]},
            InvalidRequest,
            "frechet measures what has features, and these are texts",
        ),
        ({"extractor": "digits-features"}, InvalidRequest, "Texts are compared as they are"),
        ({"train": ["a", "b", 3]}, InvalidData, r"data\[2\] is 3, of type int; a text is a str"),
        ({"train": "nowhere.txt"}, InvalidData, "train: There is no data at"),
        ({"n": 200}, InvalidRequest, "from 1 to 50"),
    ],
)
def test_evaluate_refuses_what_does_not_fit_texts(options, error, message):
    with pytest.raises(error, match=message):
        sdk.evaluate(list(random_texts(50, 40, 0)), list(random_texts(50, 40, 1)), **options)


def test_evaluate_refuses_metrics_of_texts_for_images(stripes):
    with pytest.raises(InvalidRequest, match="The metric verbatim measures texts, and these are images"):
        sdk.evaluate(stripes[0][:50, ..., None], stripes[0][50:100], metrics=["verbatim"])


def test_command_line_evaluates_texts(trained_rnn, names, tmp_path):
    rows = [f'{{"text": "{name}", "label": "{label}"}}' for name, label in zip(*names, strict=True)]
    (tmp_path / "names.jsonl").write_text("\n".join(rows))
    data, page = tmp_path / "names.jsonl", tmp_path / "page.html"
    command = ["evaluate", str(trained_rnn.folder), "--reference", str(data), "--report", str(page)]
    done = CliRunner().invoke(cli.app, command)
    assert done.exit_code == 0 and "verbatim" in done.output, done.output
    assert "verbatim" in page.read_text()
