"""Every ready-made model: it is what its index says, small, and makes what it should. Its files: test_contract.py."""

import json
import re
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

import aigc_sdk as sdk
from aigc_sdk.card import ModelCard
from aigc_sdk.generation import open_any
from aigc_sdk.recipe import Recipe
from aigc_sdk.runtime.safety import may_fold

ZOO = Path(str(files("aigc_zoo")))
INDEX = json.loads((ZOO / "models" / "index.json").read_text(encoding="utf-8"))
FILES = [(name, task) for name, entry in INDEX.items() for task in entry["files"]]

# All files of one model together.
MOST_BYTES = {"digits-vae": 5e6, "digits-gan": 3e6, "emoji-gan": 3e6, "digits-features": 0.5e6}
MOST_BYTES |= {"shakespeare": 5.5e6, "poems": 3.5e6, "names": 0.8e6, "folk-tunes": 2.2e6}


@pytest.fixture(scope="session")
def mnist_5k():
    """5,000 digits of MNIST's training set."""
    from datasets import fetch

    with np.load(fetch("mnist-5k"), allow_pickle=False) as archive:
        return archive["images"], archive["labels"]


@pytest.mark.parametrize(("name", "task"), FILES)
def test_card_says_what_the_index_says(name, task):
    card = open_any(name, task=task).card
    assert (card.name, card.task, card.license) == (name, task, INDEX[name]["license"])
    assert card.kind == INDEX[name].get("kind", "model")


@pytest.mark.parametrize("name", INDEX)
def test_model_is_small_and_follows_a_recipe(name):
    size = sum((ZOO / "models" / file["file"]).stat().st_size for file in INDEX[name]["files"].values())
    assert size <= MOST_BYTES[name]
    assert all((ZOO / "models" / file["file"]).stat().st_size <= 4e6 for file in INDEX[name]["files"].values())
    config = open_any(name).card.config
    if INDEX[name].get("kind") == "measure":
        wanted = tomllib.loads((ZOO / "recipes" / "measures" / f"{name}.toml").read_text(encoding="utf-8"))["config"]
    else:
        wanted = Recipe.read(ZOO / "recipes" / f"{name}.toml").train.config
    assert {key: config[key] for key in wanted} == wanted


def test_digits_vae_needs_little_to_generate_and_interpolate():
    files = INDEX["digits-vae"]["files"]
    assert sum((ZOO / "models" / files[task]["file"]).stat().st_size for task in ("generate", "interpolate")) <= 2.5e6


@pytest.mark.parametrize("name", INDEX)
def test_model_that_is_no_more_vouched_for_is_loaded_the_same_way(name):
    for task, file in INDEX[name]["files"].items():
        if task != "stream":  # in which those of the zoo have one operator more
            assert may_fold((ZOO / "models" / file["file"]).read_bytes())


def test_index_and_files_are_complete():
    listed = {file["file"] for entry in INDEX.values() for file in entry["files"].values()}
    assert {path.name for path in (ZOO / "models").glob("*.onnx")} == listed
    assert set(INDEX) <= {model.name for model in sdk.models()}


def test_ready_made_model_first_use_imports_neither_onnx_nor_torch(tmp_path):
    program = (
        "import sys, aigc_sdk as sdk\n"
        "sdk.generate('digits-vae', 2, seed=1)\n"
        "print(sorted({'onnx', 'torch', 'scipy', 'pandas'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize("name", ["digits-vae", "digits-gan"])
def test_model_makes_the_digit_that_was_asked_for(name, mnist_5k):
    from sklearn.neighbors import KNeighborsClassifier

    images, labels = mnist_5k
    judge = KNeighborsClassifier(1).fit(images.reshape(len(images), -1), labels)
    asked = np.arange(300) % 10
    made = sdk.generate(name, seed=1, label=asked.tolist()).to_numpy()
    assert (judge.predict(made.reshape(300, -1)) == asked).mean() > 0.85


@pytest.mark.parametrize("name", ["digits-vae", "digits-gan", "emoji-gan"])
def test_model_interpolates_between_what_it_generates(name):
    ends = sdk.generate(name, seeds=[7, 8], label=3).to_numpy()
    way = sdk.generate(f"{name}:interpolate", seeds=[7] * 5, seed_b=8, t=[0, 0.25, 0.5, 0.75, 1], label=3).to_numpy()
    assert np.array_equal(way[0], ends[0])
    assert np.array_equal(way[4], ends[1])
    steps = np.abs(np.diff(way.astype(int), axis=0)).mean((1, 2, 3))
    assert (steps > 0).all() and steps.max() < np.abs(ends[0].astype(int) - ends[1]).mean()


@pytest.mark.parametrize("name", ["digits-vae", "digits-gan", "emoji-gan"])
def test_items_of_many_requests_are_distinct(name):
    model = sdk.load(name)
    made = {item.data.tobytes() for seed in range(20) for item in model.generate(100, seed=seed)}
    assert len(made) == 2000


def test_emoji_follow_their_category_and_have_transparent_corners():
    made = {kind: sdk.generate("emoji-gan", 40, seed=1, label=kind).to_numpy() for kind in ("Flags", "People & Body")}
    whole, cut = ((images[:, [0, 0, -1, -1], [0, -1, 0, -1], 3] < 128).mean() for images in made.values())
    centre = {kind: images[:, 12:20, 12:20, 3].mean() for kind, images in made.items()}
    assert cut > 0.9 and whole > 0.9 and min(centre.values()) > 128  # a flag waves, and fills no corner
    sides = {kind: (images[:, 10:22, [1, -2], 3] > 128).mean() for kind, images in made.items()}
    assert sides["Flags"] > 0.8 > 0.4 > sides["People & Body"]  # but it reaches from side to side


def test_names_are_of_their_kind_and_rarely_the_same():
    made = {kind: [str(text) for text in sdk.generate("names", 60, seed=1, label=kind)] for kind in ("female", "male")}
    assert all(re.fullmatch("[A-Z][a-z]*", name) for names in made.values() for name in names)
    ends_in_a = {kind: np.mean([name.endswith("a") for name in names]) for kind, names in made.items()}
    assert ends_in_a["female"] > 0.2 > ends_in_a["male"] and len({*made["female"]}) > 50


def test_poems_have_the_form_that_was_asked_for():
    from datasets import poem_kind

    asked = ["five", "seven"] * 20
    made = sdk.generate("poems", seed=1, label=asked)
    assert np.mean([poem_kind(str(text)) == kind for text, kind in zip(made, asked, strict=True)]) >= 0.9
    assert (
        str(sdk.generate("poems", seed=3, label="five", prompt="春眠不覺曉")[0])[0] in "\uff0c。"
    )  # goes on in the form


def test_shakespeare_goes_on_in_verse_and_streams():
    text = str(sdk.generate("shakespeare", seed=1, prompt="HAMLET.\nTo be", temperature=0.7)[0])
    assert text == "".join(sdk.stream("shakespeare", seed=1, prompt="HAMLET.\nTo be", temperature=0.7, chunk_size=64))
    assert len(text) == 500 and 20 < np.mean([len(line) for line in text.split("\n") if line]) < 70
    words = re.findall("[a-z]+", text.lower())
    assert np.mean([word in {"the", "and", "to", "of", "i", "you", "my", "a", "that", "in"} for word in words]) > 0.1


def test_folk_tunes_fill_the_bars_asked_for_in_the_key_and_the_metre():
    from aigc_metrics.music import scale_consistency
    from aigc_music.data import bar_ticks, in_full_bars

    asked = [(key, meter) for key in ("D", "Am", "G", "Ador") for meter in ("6/8", "2/2", "3/4", "9/8")]
    keys, meters = map(list, zip(*asked, strict=True))
    tunes = list(sdk.generate("folk-tunes", key=keys, meter=meters, bars=[8, 12, 16, 20] * 4, seed=7))
    assert [(tune.key, tune.meter) for tune in tunes] == asked
    assert all(in_full_bars(tune.to_ticks(), bar_ticks(tune.meter)) for tune in tunes)
    spans = [int((tune.to_ticks()[:, 2:4].sum(1)).max() - tune.to_ticks()[0, 2]) for tune in tunes]
    assert [-(-span // bar_ticks(tune.meter)) for span, tune in zip(spans, tunes, strict=True)] == [8, 12, 16, 20] * 4
    assert np.mean([scale_consistency(tune.to_ticks(), tune.key) for tune in tunes]) > 0.95
    assert 20 < np.mean([len(tune.data) for tune in tunes]) < 250


def test_a_folk_tune_goes_on_behind_another_and_streams():
    tune = sdk.generate("folk-tunes", seed=3, key="G", meter="6/8", bars=8)[0]
    asked = {"seed": 4, "bars": 16, "prompt": tune, "max_length": 60}
    after = sdk.generate("folk-tunes", **asked)[0]
    assert (after.key, after.meter) == ("G", "6/8")
    assert after.data[0, 2] >= tune.data[:, 2].max()  # it begins where the prompt ends
    parts = list(sdk.stream("folk-tunes", **asked, chunk_size=2))
    assert len(parts) > 1 and np.array_equal(np.concatenate(parts), after.data)


def test_a_folk_tune_goes_on_behind_a_file_of_another_instrument_and_velocity(tmp_path):
    import mido

    tune = sdk.generate("folk-tunes", seed=3, key="G", meter="6/8", bars=8)[0]
    file = mido.MidiFile(tune.save(tmp_path / "tune.mid"))
    for message in file.tracks[1]:
        message.__dict__.update({"velocity": 100} if message.type == "note_on" else {})
        message.__dict__.update({"program": 73} if message.type == "program_change" else {})
    file.save(tmp_path / "flute.mid")
    assert {message.velocity for message in mido.MidiFile(tmp_path / "flute.mid") if message.type == "note_on"} == {100}
    made = [sdk.generate("folk-tunes", seed=4, prompt=tmp_path / f"{name}.mid")[0] for name in ("tune", "flute")]
    assert made[0] == made[1]


@pytest.mark.parametrize("name", ["shakespeare", "poems", "names"])
def test_cards_of_texts_say_what_was_copied(name):
    score = next(score for score in sdk.load(name).card.scores if score["metric"] == "verbatim")
    assert score["verdict"].startswith("No sign of copying") and score["details"]["longest_run"] < 100


def test_card_of_folk_tunes_says_how_near_they_are_to_real_ones():
    scores = {score["metric"]: score for score in sdk.load("folk-tunes").card.scores}
    assert scores.keys() >= {"quotes", "scale", "pitches", "durations", "density", "polyphony"}
    quotes = scores["quotes"]
    assert quotes["verdict"].startswith("No sign of copying") and quotes["value"] < quotes["details"]["held_out"]
    assert scores["pitches"]["value"] < 0.2 and scores["scale"]["value"] > 0.8


def test_digits_gan_card_says_how_good_it_is():
    card = sdk.load("digits-gan").card
    scores = {score["metric"]: score for score in card.scores}
    assert (card.family, card.data.name, scores["copying"]["details"]["p"] > 0.05) == ("gan", "mnist", True)
    assert scores["frechet"]["value"] < 1.5 * scores["frechet"]["baseline"]
    assert min(scores[name]["value"] / scores[name]["baseline"] for name in ("precision", "recall")) > 0.8


def test_digits_vae_card_names_its_data_and_how_good_it_is():
    card = sdk.load("digits-vae").card
    assert isinstance(card, ModelCard)
    assert (card.data.name, card.data.n) == ("mnist", 60_000)
    scores = {score["metric"]: score for score in card.scores}
    assert scores["negative_elbo"]["value"] < 100 and scores["copying"]["details"]["p"] > 0.05
    assert scores["frechet"]["value"] < 3 * scores["frechet"]["baseline"]
    assert min(scores[name]["value"] / scores[name]["baseline"] for name in ("precision", "recall")) > 0.8
