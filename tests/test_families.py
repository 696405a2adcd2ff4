"""Every registered family goes through every stage: one tiny training of each is shared by all tests here."""

import json
import shutil

import numpy as np
import pytest

import aigc_sdk as sdk
from aigc_onnx.measure import export_measure
from aigc_sdk import testing
from aigc_sdk.card import DataSummary, ModelCard, OutputSpec, checked
from aigc_sdk.errors import InvalidConfig, InvalidData, InvalidRequest
from aigc_sdk.evaluation.extractors import as_array
from aigc_sdk.generation import selftest
from aigc_sdk.registry import default_registry
from aigc_sdk.testing.families import example_data
from aigc_sdk.training.plan import plan
from tiny_music import make_music_card, make_music_graph, write_tiny_music

# Of each family the fixture with its training, and the one with the data; a family without is an error below.
RUNS = {
    "gan": ("trained_gan", "digits_8x8"),
    "vae": ("trained", "digits_8x8"),
    "rnn": ("trained_rnn", "names"),
    "music-rnn": ("trained_music", "pieces"),
}
METRICS = {"image": "frechet", "text": "ngrams", "music": "pitches"}
N, LEAST = 30, 10


@pytest.fixture(scope="session")
def pieces():
    return example_data("music")[0]


@pytest.fixture(params=sorted(default_registry().names("family")))
def family(request):
    """The name of a family, its run and its data."""
    run, data = RUNS[request.param]
    return request.param, request.getfixturevalue(run), request.getfixturevalue(data)


@pytest.fixture
def copied(family, tmp_path):
    """The same, with the run in a folder of its own."""
    name, run, data = family
    shutil.copytree(run.folder, tmp_path / "run")
    return name, run, data


def asked(run) -> dict:
    return {name: value for name, value in run.record.config.items() if value is not None}


def reference_of(run, folder):
    """Write a reference that the run was not trained on; return its name."""
    modality = run.family_class().modality
    if modality == "image":
        np.save(folder / "other.npy", np.random.default_rng(1).integers(0, 256, (60, 8, 8, 1), np.uint8))
        return "other.npy"
    if modality == "text":
        (folder / "other.csv").write_text("text\n" + "".join(f"kalomira{'ten' * (i % 7)}vu{i}\n" for i in range(60)))
        return "other.csv"
    (folder / "other").mkdir()
    for i, tune in enumerate(sdk.generate("folk-tunes", N, seed=3, max_length=60)):
        tune.save(folder / "other" / f"{i}.mid")
    return "other"


def recipe_of(name, run, folder, evaluate):
    config = "\n".join(f"{key} = {json.dumps(value)}" for key, value in asked(run).items())
    text = f'data.name = "given"\n[train]\nfamily = "{name}"\nseed = {run.record.seed}\nout = "run"\n'
    path = folder / "recipe.toml"
    path.write_text(f"{text}[train.config]\n{config}\n[evaluate]\n{evaluate}\n", encoding="utf-8")
    return path


def test_every_registered_family_has_a_training_here():
    assert set(default_registry().names("family")) == set(RUNS)


def test_family_trains_to_a_file_for_every_task_with_samples(family):
    _, run, _ = family
    assert set(run.models) == set(run.family_class().tasks)
    assert any((run.folder / "samples").iterdir())


def test_family_is_planned(family):
    name, run, data = family
    planned = plan(name, data, seed=run.record.seed, config=asked(run))
    assert planned.steps == run.metrics[-1]["step"]


def test_family_resumed_when_finished_stays_as_it_is(copied, tmp_path):
    name, run, data = copied
    files = {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()}
    sdk.train(name, data, out=tmp_path / "run", seed=run.record.seed, resume=True, **asked(run))
    assert {path: path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file()} == files


def test_family_is_evaluated_against_its_own_data_and_by_a_recipe_against_other(copied, tmp_path):
    name, run, data = copied
    metric = METRICS[run.family_class().modality]
    extractor = {}
    if run.family_class().modality == "image":
        from tiny_measure import write_tiny_measure

        extractor = {"extractor": str(write_tiny_measure(tmp_path / "features.onnx"))}
    n = min(N, run.record.data.split["test"])
    if n >= LEAST:
        assert sdk.evaluate(tmp_path / "run", data, n=n, metrics=None, **extractor).scores
    else:  # of few pieces the test part is small
        with pytest.raises(
            InvalidData, match=f"needs at least {LEAST} generated and as many held-out items; there are"
        ):
            sdk.evaluate(tmp_path / "run", data, n=n, metrics=None)
    options = [f'reference = "{reference_of(run, tmp_path)}"', f'metrics = ["{metric}"]', f"n = {N}"]
    options += [f"extractor = {json.dumps(value)}" for value in extractor.values()]
    made = sdk.run(recipe_of(name, run, tmp_path, "\n".join(options)), data=data)
    (score,) = [score for score in sdk.load(made.folder).card.scores if score["metric"] == metric]
    assert score["n_fake"] == N and score["reference"] != run.record.data.fingerprint


def test_family_item_is_reproduced_from_its_file(family, tmp_path):
    _, run, _ = family
    item = sdk.generate(run.folder, 3, seed=5)[2]
    path = item.save(tmp_path / f"item{item.suffixes[0]}")
    assert sdk.reproduce(path, model=run.folder)[0] == item


def test_family_files_pass_their_selftest(family):
    _, run, _ = family
    for path in run.models.values():
        passed, measured = selftest(path)
        assert passed, f"{path.name}: {measured}"


def test_family_music_holds_its_parts_as_golden_items(trained_music):
    for path in trained_music.models.values():
        card = sdk.load(path).card
        assert sorted(card.golden.parts) == ["key", "meter", "tempo"] and card.golden.provider


def test_family_measures_take_what_its_first_task_makes(family):
    _, run, _ = family
    for task in run.family_class().measures:
        items = sdk.generate(run.folder, 5, seed=2)
        values = sdk.measure(run.models[task], items)
        alone = sdk.measure(run.models[task], items[3:4])
        assert values.shape[0] == 5 and np.allclose(values[3], alone[0], atol=1e-4)


# ---------------------------------------------------------------- measures of music


@pytest.fixture(scope="module")
def counting(tmp_path_factory):
    """A measure of music, exported: how many notes a piece has, and their mean pitch."""
    import torch

    class Count(torch.nn.Module):
        def forward(self, content, length):
            there = torch.arange(content.shape[1])[None] < length[:, None]
            pitch = (content[:, :, 0] * there).sum(1) / length.clamp(min=1)
            return torch.stack([length.float(), pitch], 1)

    music = make_music_card(make_music_graph())
    values = {
        **{name: getattr(music, name) for name in ("version", "license", "intended_use", "created", "sdk_version")},
        "kind": "measure",
        "name": "count",
        "family": "handmade",
        "task": "count",
        "modality": "music",
        "controls": (),
        "input": OutputSpec(dtype="float32", shape=(100, 6), length=True),
        "output": OutputSpec(dtype="float32", shape=(2,)),
        "config": {},
        "data": DataSummary(name="none", fingerprint=None, n=1, split={}),
        "graph_sha256": "0" * 64,
    }
    random = np.random.default_rng(0)
    lengths = random.integers(1, 13, 64)
    notes = random.integers(1, 100, (64, 12, 6)).astype(np.float32) * (np.arange(12) < lengths[:, None])[..., None]
    path = tmp_path_factory.mktemp("measure") / "count.onnx"
    export_measure(Count(), checked(ModelCard, values), path, notes.astype(np.float32))
    return path


def test_measure_of_music_is_fed_notes_and_how_many(counting, tmp_path):
    model = sdk.load(write_tiny_music(tmp_path / "tune.onnx"))
    values = sdk.measure(counting, model.generate(seeds=[0, 3]))
    assert values.tolist() == [[2, 62], [2, 65]]  # two notes of 60 and 64, moved up by seed & 7
    tunes = sdk.generate("folk-tunes", 4, seed=1, max_length=80)
    wanted = [[len(tune.data), tune.data[:, 0].mean()] for tune in tunes]
    assert len({len(tune.data) for tune in tunes}) > 1
    np.testing.assert_allclose(sdk.measure(counting, tunes), wanted, rtol=1e-5)
    np.testing.assert_allclose(sdk.measure(counting, as_array(tunes)), wanted, rtol=1e-5)


def test_measure_of_music_passes_all_checks(counting):
    assert "check_values_do_not_depend_on_others" in testing.check_model(counting)
    assert selftest(counting)[0]


def test_measure_of_music_refuses_images(counting):
    with pytest.raises(InvalidRequest, match=r"measures contents of float32 \(n, 100, 6\)"):
        sdk.measure(counting, np.zeros((2, 8, 8, 1), np.uint8))


# ---------------------------------------------------------------- what a recipe checks before it trains


@pytest.mark.parametrize(
    ("family", "evaluate", "error", "message"),
    [
        ("rnn", 'reference = "bad.csv"', InvalidData, "reference: "),
        ("rnn", 'metrics = ["frechet"]', InvalidRequest, "frechet measures what has features, and these are texts"),
        ("rnn", 'extractor = "digits-features"', InvalidRequest, "Texts are compared as they are"),
        ("rnn", 'metrics = ["ngrams"]\nreference = "few.csv"', InvalidData, "ngrams needs at least"),
        ("vae", 'metrics = ["ngrams"]', InvalidRequest, "ngrams measures texts, and these are images"),
        ("vae", 'extractor = "digits-features"', InvalidRequest, r"takes uint8 \(28, 28, 1\)"),
        ("vae", 'reference = "large.npy"', InvalidData, r"the generated ones \(8, 8, 1\)"),
        ("vae", 'metrics = ["recall"]\nconfig_test = 0', InvalidData, "recall needs at least 20"),
        ("music-rnn", 'reference = "bad.csv"', InvalidData, "reference: "),
        (
            "music-rnn",
            'metrics = ["recall"]',
            InvalidRequest,
            "recall measures what has features, and these are pieces",
        ),
    ],
)
def test_recipe_whose_evaluation_cannot_be_made_trains_nothing(
    tmp_path, stripes, names, pieces, monkeypatch, family, evaluate, error, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.csv").write_text("nothing\n1\n")
    (tmp_path / "few.csv").write_text("text\nkalo\nmira\ntenvu\n")
    np.save(tmp_path / "large.npy", np.random.default_rng(0).integers(0, 256, (40, 16, 16, 1), np.uint8))
    data = {"rnn": names, "vae": stripes, "music-rnn": pieces}[family]
    text = f'data.name = "given"\n[train]\nfamily = "{family}"\nout = "out"\n[evaluate]\n'
    (tmp_path / "recipe.toml").write_text(text + evaluate.replace("\nconfig_test = 0", ""))
    with pytest.raises(error, match=message):
        sdk.run("recipe.toml", data=data)
    assert not (tmp_path / "out" / "metrics.jsonl").exists() and not (tmp_path / "out" / "run.json").exists()


def test_recipe_of_a_task_that_needs_an_image_trains_nothing(tmp_path, stripes, monkeypatch):
    from dataclasses import replace

    from aigc_sdk.registry import Registry

    spec = sdk.FamilySpec(name="sharpen", target="test_samples:Sharpen")
    known = default_registry()
    registry = Registry([])
    registry.plugins = [*known.plugins, replace(known.plugins[0], name="x", distribution="x", specs=[("family", spec)])]
    for module in ("training.loop", "training.run", "recipe"):
        monkeypatch.setattr(f"aigc_sdk.{module}.default_registry", lambda: registry)
    path = tmp_path / "recipe.toml"
    path.write_text('data.name = "given"\n[train]\nfamily = "sharpen"\nout = "out"\n[evaluate]\n')
    with pytest.raises((InvalidRequest, InvalidConfig), match="cannot be evaluated without its control 'image'"):
        sdk.run(path, data=stripes)
    assert not (tmp_path / "out" / "run.json").exists()
