"""Recipes: what one may say, what is refused before anything begins, and that what is done is not done again."""

import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import aigc_sdk as sdk
from aigc_sdk import cli
from aigc_sdk.errors import (
    InvalidConfig,
    InvalidData,
    InvalidModel,
    InvalidRequest,
    MissingPackage,
    StorageError,
    UnknownName,
)
from aigc_sdk.recipe import Recipe, copy_models
from aigc_sdk.runtime.safety import check_model
from aigc_sdk.training import Run
from tiny_measure import write_tiny_measure

DATA = '[data]\nname = "digits-8x8"\n'


@pytest.fixture
def write(tmp_path):
    """Write a recipe and return its path."""

    def write(text):
        path = tmp_path / "recipe.toml"
        path.write_text(text, encoding="utf-8")
        return path

    return write


@pytest.fixture
def finished(trained, tmp_path, write):
    """A recipe whose training is finished in a folder of its own, as text, and that folder."""
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    config = {name: value for name, value in trained.record.config.items() if value is not None}
    table = "\n".join(f"{name} = {json.dumps(value)}" for name, value in config.items())
    return f'{DATA}[train]\nfamily = "vae"\nseed = 3\nout = "run"\n[train.config]\n{table}\n', folder


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_recipe_read_fills_in_what_is_left_out(write):
    recipe = Recipe.read(write('data.path = "x.npz"\ntrain.family = "vae"\nevaluate = {}\n'))
    assert (recipe.data.path, recipe.data.name, recipe.summary) == ("x.npz", None, "")
    assert (recipe.train.seed, recipe.train.out, recipe.train.config) == (0, None, {})
    assert (recipe.evaluate.metrics, recipe.evaluate.n, recipe.evaluate.seed) == (None, None, 0)
    assert recipe.export is None


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("", InvalidConfig, "recipe.toml: data: .*; train: "),
        ("[data\n", InvalidConfig, "recipe.toml is no TOML: "),
        ("a = " + "[" * 5000, InvalidConfig, "recipe.toml is no TOML: "),
        ("seed = 1\nseed = 2", InvalidConfig, "recipe.toml is no TOML: "),
        (DATA + "[trian]\n", UnknownName, r"no key of recipe recipe.toml 'trian'. Did you mean 'train'\?"),
        (DATA + '[train]\nfamly = "vae"', UnknownName, r"no key of \[train\] in recipe.toml 'famly'"),
        (DATA + '[train]\nfamily = "vae"\n[evaluate]\nmetric = []', UnknownName, "Did you mean 'metrics'"),
        (DATA + '[train]\nfamily = "vae"\nlatent = 3', UnknownName, r"no key of \[train\] .* 'latent'"),
        (DATA + "[train]\nseed = 1", InvalidConfig, "recipe.toml: train.family: "),
        (DATA + "[train]\nfamily = 3", InvalidConfig, "recipe.toml: train.family: "),
        (DATA + '[train]\nfamily = "vae"\nseed = -1', InvalidConfig, "recipe.toml: train.seed: "),
        (DATA + '[train]\nfamily = "vae"\nseed = "1"', InvalidConfig, "recipe.toml: train.seed: "),
        (DATA + '[train]\nfamily = "vae"\nseed = 1.0', InvalidConfig, "recipe.toml: train.seed: "),
        (DATA + '[train]\nfamily = "vae"\nconfig = 3', InvalidConfig, "recipe.toml: train.config: "),
        ('train = "vae"\n' + DATA, InvalidConfig, "recipe.toml: train: "),
        (DATA + '[train]\nfamily = "vae"\n[evaluate]\nn = 0', InvalidConfig, "recipe.toml: evaluate.n"),
        (DATA + '[train]\nfamily = "vae"\n[evaluate]\nmetrics = "recall"', InvalidConfig, "evaluate.metrics"),
        (DATA + '[train]\nfamily = "vae"\n[evaluate]\nmetrics = []', InvalidConfig, "evaluate.metrics"),
        (DATA + '[train]\nfamily = "vae"\n[export]', InvalidConfig, "recipe.toml: export.folder: "),
        (DATA + '[train]\nfamily = "vae"\n[export]\nfolder = ""', InvalidConfig, "recipe.toml: export.folder: "),
        ('[data]\npath = ""\n[train]\nfamily = "vae"', InvalidConfig, "recipe.toml: data.path: "),
    ],
)
def test_recipe_that_is_wrong_is_refused(write, tmp_path, text, error, message):
    with pytest.raises(error, match=message):
        sdk.run(write(text), data=np.zeros((4, 8, 8), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ('[train]\nfamily = "vee"', UnknownName, "no family 'vee'. Did you mean 'vae'"),
        ('[train]\nfamily = "vae"\nconfig.latnt = 3', UnknownName, "Did you mean 'latent'"),
        ('[train]\nfamily = "vae"\nconfig.latent = -3', InvalidConfig, "latent is -3"),
        ('[train]\nfamily = "vae"\n[evaluate]\nmetrics = ["recal"]', UnknownName, "no metric 'recal'"),
        (
            '[train]\nfamily = "vae"\n[evaluate]\nreference = "' + "x" * 300 + '"',
            InvalidData,
            "no data at .*x, the reference",
        ),
        (
            '[train]\nfamily = "vae"\nconfig.test_fraction = 0\n[evaluate]',
            InvalidConfig,
            "test_fraction is 0; give a reference",
        ),
        (
            '[train]\nfamily = "vae"\n[evaluate]\nreference = "no.npz"',
            InvalidData,
            "no data at .*no.npz, the reference",
        ),
        ('[train]\nfamily = "vae"\n[evaluate]\nn = 2\nmetrics = ["recall"]', InvalidConfig, "n is 2; recall needs 20"),
        ('[train]\nfamily = "vae"\n[export]\nfolder = "recipe.toml"', StorageError, "the export folder .* is a file"),
        ('[train]\nfamily = "vae"\n[export]\nfolder = "recipe.toml/a/b"', StorageError, "recipe.toml is a file"),
        ('[train]\nfamily = "vae"\n[evaluate]\nextractor = "digit-features"', UnknownName, "Did you mean 'digits-f"),
        ('[train]\nfamily = "vae"\n[evaluate]\nextractor = "digits-vae"', InvalidRequest, "is a model; give a meas"),
        ('[train]\nfamily = "vae"\n[evaluate]\nextractor = "recipe.toml"', InvalidModel, "recipe.toml is"),
        (
            '[train]\nfamily = "vae"\n[export]\nfolder = "x"\ntasks = ["paint"]',
            UnknownName,
            "no task of the family vae",
        ),
    ],
)
def test_recipe_that_asks_for_what_there_is_not_begins_nothing(write, tmp_path, monkeypatch, text, error, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=message):
        sdk.run(write(DATA + text), data=np.zeros((40, 8, 8), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def test_recipe_with_an_evaluation_without_matplotlib_begins_nothing(write, tmp_path, monkeypatch):
    monkeypatch.setattr("aigc_sdk.recipe.find_spec", lambda _: None)
    with pytest.raises(MissingPackage, match=r"pip install 'aigc-sdk\[evaluate\]'"):
        sdk.run(write(DATA + '[train]\nfamily = "vae"\n[evaluate]'), data=np.zeros((40, 8, 8), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.toml"]


def test_recipe_whose_data_has_to_be_given_says_so(write):
    text = '[train]\nfamily = "vae"'
    with pytest.raises(InvalidRequest, match=r"needs the data set 'digits-8x8'; give it as data \(--data\)"):
        sdk.run(write(DATA + text))
    with pytest.raises(InvalidRequest, match="needs a data set, and names no path of it"):
        sdk.run(write("data = {}\n" + text))
    with pytest.raises(InvalidData, match=r"no data at .*missing\.npz"):
        sdk.run(write('data.path = "missing.npz"\n' + text))


@pytest.mark.parametrize("name", ["missing.toml", "folder"])
def test_recipe_that_cannot_be_read_raises(tmp_path, name):
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="Cannot read"):
        sdk.run(tmp_path / name)
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InvalidConfig, match=r"bytes\.toml is no TOML"):
        sdk.run(tmp_path / "bytes.toml")


def test_run_goes_on_after_the_training_and_does_nothing_twice(finished, write, tmp_path, digits_8x8):
    text, folder = finished
    write_tiny_measure(tmp_path / "features.onnx")
    before, unscored = sdk.load(folder), files_of(folder)
    stages = '[evaluate]\nmetrics = ["frechet", "recall"]\nn = 60\nextractor = "features.onnx"\n'
    recipe = write(text + stages + '[export]\nfolder = "models"\n')
    run = sdk.run(recipe, data=digits_8x8)
    assert run.folder == folder

    # The scores stand in the card of the first task, and the model is the one it was.
    card = sdk.load(folder).card
    scores = {score["metric"]: score for score in card.scores}
    assert {"negative_elbo", "frechet", "recall"} <= scores.keys()
    assert scores["frechet"]["n_fake"] == 60 and scores["frechet"]["value"] > 0
    assert card.graph_sha256 == before.card.graph_sha256
    assert sdk.generate(folder, 3, seed=7) == before.generate(3, seed=7)
    reported = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert [score["value"] for score in reported["scores"]] == [scores[m]["value"] for m in ("frechet", "recall")]
    assert (folder / "report.html").exists()

    # The copies are the files, scores included.
    names = {path.name for path in (tmp_path / "models").iterdir()}
    assert {"digits-8x8.onnx", "digits-8x8.card.json", "digits-8x8.interpolate.onnx"} <= names
    copied = (tmp_path / "models" / "digits-8x8.onnx").read_bytes()
    assert copied == (folder / "model.onnx").read_bytes()
    assert check_model(copied, "copy") == card

    # Again: nothing is trained or measured, and the folder stays as it is.
    files = files_of(folder)
    sdk.run(recipe, data=digits_8x8)
    assert files_of(folder) == files
    # A model file that is made anew gets its scores again.
    for name in ("model.onnx", "model.card.json"):
        (folder / name).write_bytes(unscored[name])
    sdk.run(recipe, data=digits_8x8)
    assert files_of(folder)["model.onnx"] == files["model.onnx"]
    # With another extractor of that name, another reference in its file, or another n, the evaluation is done again.
    write_tiny_measure(tmp_path / "features.onnx", divisor=2.0)
    sdk.run(recipe, data=digits_8x8)
    assert sdk.load(folder).card.scores[-1]["extractor_sha256"] != scores["recall"]["extractor_sha256"]
    referred = write(text + stages + 'reference = "other.npy"\n')
    for images in (digits_8x8[0][:99] // 2, digits_8x8[0][:99] // 3):
        np.save(tmp_path / "other.npy", images)
        sdk.run(referred, data=digits_8x8)
        assert sdk.load(folder).card.scores[-1]["reference"] != scores["recall"]["reference"]
        scores = {score["metric"]: score for score in sdk.load(folder).card.scores}
    sdk.run(write(text + stages.replace("60", "50")), data=digits_8x8)
    assert sdk.load(folder).card.scores[-1]["n_fake"] == 50
    assert {name for name, data in files_of(folder).items() if data != files.get(name)} == {
        "model.onnx", "model.card.json", "report.json", "report.html", "evaluated.json",
    }  # fmt: skip


@pytest.mark.slow
def test_run_from_nothing_and_after_a_kill(write, tmp_path, digits_8x8, monkeypatch):
    np.savez(tmp_path / "digits.npz", images=digits_8x8[0], labels=digits_8x8[1])
    config = "steps = 4\nlatent = 4\nwidth = 8\n"
    recipe = write(f'data.path = "digits.npz"\n[train]\nfamily = "gan"\n[train.config]\n{config}')
    monkeypatch.chdir(tmp_path)
    code = (
        "import os\nfrom aigc_sdk.training import loop\n"
        "loop._export_all = lambda *_: os._exit(9)\nimport aigc_sdk as sdk\nsdk.run('recipe.toml')"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=tmp_path).returncode == 9
    trained = (tmp_path / "recipe" / "metrics.jsonl").read_bytes()
    run = sdk.run(recipe)
    assert run.folder.resolve() == tmp_path / "recipe"
    assert sorted(run.models) == sorted(run.family_class().tasks)
    assert (tmp_path / "recipe" / "metrics.jsonl").read_bytes() == trained  # only the model files were missing
    assert sdk.load("./recipe").card.config["steps"] == 4


def test_run_that_failed_in_a_later_stage_keeps_the_earlier_ones(finished, write, tmp_path, digits_8x8):
    text, folder = finished
    files = files_of(folder)
    recipe = write(text + '[evaluate]\nn = 1\n[export]\nfolder = "models"\n')
    with pytest.raises(InvalidData, match="needs at least"):
        sdk.run(recipe, data=digits_8x8)
    assert files_of(folder) == files
    assert not (tmp_path / "models").exists()
    sdk.run(write(text + '[export]\nfolder = "models"\ntasks = ["interpolate"]\n'), data=digits_8x8)
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == [
        "digits-8x8.interpolate.card.json",
        "digits-8x8.interpolate.onnx",
    ]


def test_run_in_the_folder_of_another_recipe_raises(finished, write, digits_8x8):
    text, folder = finished
    files = files_of(folder)
    with pytest.raises(InvalidConfig, match="seed was 3, now 4"):
        sdk.run(write(text.replace("seed = 3", "seed = 4")), data=digits_8x8)
    with pytest.raises(InvalidConfig, match="the data was"):
        sdk.run(write(text), data=(digits_8x8[0][:-1], digits_8x8[1][:-1]))
    assert files_of(folder) == files


def test_copy_models_over_older_ones_leaves_nothing_else(trained, tmp_path):
    (tmp_path / "digits-8x8.onnx").write_text("old")
    copies = copy_models(trained, tmp_path, ["generate"])
    assert copies == {"generate": tmp_path / "digits-8x8.onnx"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits-8x8.card.json", "digits-8x8.onnx"]
    assert sdk.load(copies["generate"]).card == sdk.load(trained.folder).card


def test_copy_models_gives_each_the_card_that_is_inside(trained, tmp_path, caplog):
    folder = tmp_path / "run"
    shutil.copytree(trained.folder, folder)
    (folder / "model.card.json").write_text("{}")
    (copy,) = copy_models(Run.open(folder), tmp_path, ["generate"]).values()
    assert "model.card.json is not the card that is inside" in caplog.text
    caplog.clear()
    card = sdk.load(copy).card
    assert copy.with_suffix(".card.json").read_text(encoding="utf-8") == card.to_json() and not caplog.records


def test_aigc_run_takes_data_and_out(finished, write, tmp_path, digits_8x8):
    text, folder = finished
    np.savez(tmp_path / "digits.npz", images=digits_8x8[0], labels=digits_8x8[1])
    recipe = write(text.replace('out = "run"\n', ""))
    arguments = ["run", str(recipe), "--data", str(tmp_path / "digits.npz"), "--out", str(folder)]
    done = CliRunner().invoke(cli.app, arguments, catch_exceptions=False)
    assert done.exit_code == 0
    assert f"generate: {folder / 'model.onnx'}\n" in done.stdout
    assert f"interpolate: {folder / 'model.interpolate.onnx'}\n" in done.stdout


@pytest.mark.parametrize(
    ("signal_number", "message"), [(None, "aigc: stopped. The"), (signal.SIGTERM, "aigc: checkpoint kept. The")]
)
def test_aigc_run_interrupted_says_that_the_same_command_goes_on(monkeypatch, write, signal_number, message):
    error = KeyboardInterrupt(*(["checkpoint kept."] if signal_number else []))
    if signal_number:
        error.signal = signal_number

    def interrupted(*_, **__):
        raise error

    monkeypatch.setattr(sdk, "run", interrupted)
    done = CliRunner().invoke(cli.app, ["run", str(write(DATA))])
    assert done.exit_code == 128 + (signal_number or signal.SIGINT)
    assert done.stderr == f"{message} same command goes on.\n"
