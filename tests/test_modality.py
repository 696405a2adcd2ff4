"""Kinds of content that others bring: a model of tones, whose plugin is a distribution of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import tone_plugin
from aigc_sdk.card import Control, Golden, OutputPart, OutputSpec
from aigc_sdk.errors import PluginError, UnknownName
from aigc_sdk.registry import Plugin, Registry, default_registry
from aigc_sdk.specs import ModalitySpec
from tiny_model import make_card, to_bytes

SAMPLES = 16
LOUDNESS = OutputPart(name="loudness", dtype="float32", minimum=0, maximum=1, help="of 1")
OUTPUT = OutputSpec(dtype="int16", shape=(SAMPLES,), parts=(LOUDNESS,), attributes={"sample_rate": 8000})
PITCH = {"name": "pitch", "kind": "pitch", "dtype": "float32", "default": 0.0, "help": "of the tone"}


def made(seeds, pitch=0):
    low = np.asarray(seeds, np.int64)[:, None] & 255
    return (low + np.arange(SAMPLES) * 100 + int(pitch)).astype(np.int16), (low[:, 0] / 255).astype(np.float32)


def write_tone_model(path, *, output=OUTPUT, golden_off=0, package="my-tones"):
    """Write a model whose sample t is (seed & 255) + 100 t + pitch, and whose loudness is (seed & 255) / 255."""
    nodes = [
        helper.make_node("BitwiseAnd", ["seed", "low_byte"], ["low"]),
        helper.make_node("Cast", ["low"], ["low_float"], to=TensorProto.FLOAT),
        helper.make_node("Div", ["low_float", "most"], ["content.loudness"]),
        helper.make_node("Cast", ["pitch"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["low", "whole"], ["start"]),
        helper.make_node("Unsqueeze", ["start", "one"], ["column"]),
        helper.make_node("Add", ["column", "ramp"], ["samples"]),
        helper.make_node("Cast", ["samples"], ["content"], to=TensorProto.INT16),
    ]
    constants = [
        numpy_helper.from_array(np.array(255, np.int64), "low_byte"),
        numpy_helper.from_array(np.array(255, np.float32), "most"),
        numpy_helper.from_array(np.array([1], np.int64), "one"),
        numpy_helper.from_array(np.arange(SAMPLES, dtype=np.int64) * 100, "ramp"),
    ]
    inputs = [("seed", TensorProto.INT64), ("pitch", TensorProto.FLOAT)]
    outputs = [("content", TensorProto.INT16, ["n", SAMPLES]), ("content.loudness", TensorProto.FLOAT, ["n"])]
    graph = helper.make_graph(
        nodes,
        "tones",
        [helper.make_tensor_value_info(name, dtype, ["n"]) for name, dtype in inputs],
        [helper.make_tensor_value_info(*each) for each in outputs],
        constants,
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    seeds = np.array([1, 2, 3, 2**40 + 7], np.int64)
    content, loudness = made(seeds)
    golden = Golden.of(seeds, {"pitch": np.zeros(4, np.float32)}, content + golden_off, {"loudness": loudness})
    controls = (Control(**PITCH),)
    card = make_card(model, name="beep", modality="tone", controls=controls, output=output, golden=golden)
    values = json.loads(card.to_json()) | ({"package": package} if package else {})
    path.write_bytes(to_bytes(model, json.dumps(values)))
    return path


@pytest.fixture
def site(tmp_path):
    """An environment in which the plugin is installed, as the distribution my-tones."""
    folder = tmp_path / "site"
    info = folder / "my_tones-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-tones\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[aigc_sdk]\ntones = tone_plugin\n")
    for name in ("tone_plugin.py", "tone_training.py"):
        shutil.copy(Path(__file__).parent / name, folder)
    return {**os.environ, "PYTHONPATH": str(folder), "AIGC_SDK_CACHE": str(tmp_path / "cache")}


def run(environment, *arguments, code=0):
    done = subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


AIGC = ("-c", "from aigc_sdk.cli import main; main()")

USE = """
import pickle, sys
import numpy as np
import aigc_sdk as sdk
from pathlib import Path

model, folder = sys.argv[1:]
tones = sdk.generate(model, seeds=[300, 7], pitch=[0, 5])
assert type(tones[0]).__name__ == "Tone" and tones[1].data.tolist() == [12 + 100 * t for t in range(16)]
assert tones[0].parts["loudness"] == np.float32(44 / 255) and tones[0].card.output.attributes == {"sample_rate": 8000}
assert tones.overview() is None and not hasattr(tones, "grid")
assert pickle.loads(pickle.dumps(tones)) == tones
paths = tones.save(folder)
assert [path.name for path in paths] == ["00.wav", "01.wav"]
assert sdk.reproduce(paths[1], model=model)[0] == tones[1]
try:
    sdk.generate(model, seed=256)
except sdk.errors.GenerationFailed as error:
    assert "beep returned a loudness of 0" in str(error), error
try:
    sdk.generate(model, pitch=13)
except sdk.errors.InvalidRequest as error:
    assert "give semitones above a, from 0 to 12" in str(error), error
for what in (lambda: sdk.evaluate(model, [1, 2]), lambda: sdk.evaluate(tones, [1, 2])):
    try:
        what()
    except sdk.errors.PluginError as error:
        assert "Tones cannot be evaluated" in str(error), error
print("used")
"""


def test_a_kind_of_content_from_outside_is_made_saved_and_made_again(site, tmp_path):
    model = write_tone_model(tmp_path / "beep.onnx")
    assert run(site, "-c", USE, str(model), str(tmp_path / "out")).stdout == "used\n"
    told = run(site, *AIGC, "generate", str(model), "-n", "2", "--seed", "7", "-o", str(tmp_path / "more")).stdout
    assert told.startswith("2 items in ") and len(list((tmp_path / "more").glob("*.wav"))) == 2
    assert "PASS" in run(site, *AIGC, "selftest", str(model)).stdout.upper()


TRAIN = """
import sys
import numpy as np
import aigc_sdk as sdk
from aigc_sdk.training import Run

folder = sys.argv[1]
tones = (np.arange(16) * 100 + np.random.default_rng(0).integers(-9, 9, (200, 1))).astype("int16")
options = {"steps": 300, "batch_size": 50, "learning_rate": 0.1}
run = sdk.train("means", tones, out=folder, **options)
assert Run.open(run.folder).record.details == {"loudest": float(np.abs(tones).max())}, run.record
made = sdk.generate(folder, 8, seed=1)
assert {type(item).__name__ for item in made} == {"Tone"}
card = sdk.load(folder).card
assert (card.modality, card.package) == ("tone", "my-tones"), card.package
for item in made:
    wanted = np.arange(16) * 100 * item.parts["loudness"]
    assert np.abs(item.data - wanted).max() < 20, (item.data, wanted)
assert sdk.train("means", tones, out=folder, resume=True, **options).models == run.models
print(len(list((run.folder / "samples").glob("*.wav"))) > 0)
"""


def test_a_kind_of_content_from_outside_is_trained_exported_and_made(site, tmp_path):
    assert run(site, "-c", TRAIN, str(tmp_path / "run")).stdout == "True\n"


def test_without_its_plugin_a_card_is_shown_and_a_model_refused_with_the_package(tmp_path):
    model = write_tone_model(tmp_path / "beep.onnx")
    shown = run(os.environ, *AIGC, "inspect", str(model)).stdout
    assert "tone, int16 (16,)" in shown and "its kind is known to no plugin" in " ".join(shown.split())
    refused = run(os.environ, *AIGC, "generate", str(model), code=2).stderr
    assert "There is no modality 'tone'" in refused and "Run: pip install my-tones" in refused


def test_a_model_that_makes_other_arrays_than_its_kind_has_is_refused(site, tmp_path):
    silent = OutputSpec(dtype="int16", shape=(SAMPLES,), parts=(LOUDNESS,))
    model = write_tone_model(tmp_path / "beep.onnx", output=silent)
    assert "a tone is int16 (samples,) with a sample_rate" in run(site, *AIGC, "generate", str(model), code=2).stderr


def test_golden_items_tell_of_a_kind_of_content_too(site, tmp_path):
    model = write_tone_model(tmp_path / "beep.onnx", golden_off=5)
    assert "FAIL" in run(site, *AIGC, "selftest", str(model), code=1).stdout.upper()


# ---------------------------------------------------------------- what a plugin may get wrong


def registry_of(*specs):
    """A registry of some modalities, each of a distribution of its own."""
    registry = Registry(())
    for i, spec in enumerate(specs):
        registry.plugins.append(Plugin(f"p{i}", f"d{i}", "1", specs=[("modality", spec)]))
    return registry


TONES = ModalitySpec(name="tone", target="tone_plugin:Tones", kinds=("pitch",), api_version=1)


def test_a_modality_is_made_once_and_its_kinds_too():
    registry = registry_of(TONES)
    assert registry.modality("tone") is registry.modality("tone") and registry.kind("pitch") is registry.kind("pitch")
    assert registry.kinds() == ["pitch"] and registry.package_of("tone") == "d0"
    assert default_registry().package_of("image") == ""


@pytest.mark.parametrize(
    ("target", "name", "message"),
    [
        ("Tones", "noise", "its spec says 'noise', and it is 'tone'"),
        ("Tone", "tone", "is no subclass of aigc_sdk.modality.Modality"),
        ("Nothing", "tone", "has no attribute 'Nothing'"),
    ],
)
def test_a_modality_that_cannot_be_is_named(target, name, message):
    with pytest.raises(PluginError, match=message):
        registry_of(ModalitySpec(name=name, target=f"tone_plugin:{target}", api_version=1)).modality(name)


def test_a_modality_that_two_strangers_bring_is_named():
    with pytest.raises(PluginError, match="Several plugins offer the modality 'tone'; pick one of: d0:tone, d1:tone"):
        registry_of(TONES, TONES).modality("tone")


def test_a_kind_that_its_modality_has_not_is_named():
    with pytest.raises(PluginError, match="'tone' has no control kind 'loud', which its spec promises"):
        registry_of(ModalitySpec(name="tone", target="tone_plugin:Tones", kinds=("loud",), api_version=1)).kind("loud")
    two = registry_of(TONES, ModalitySpec(name="noise", target="tone_plugin:Tones", kinds=("pitch",), api_version=1))
    with pytest.raises(PluginError, match="Several plugins bring the control kind 'pitch': d0, d1"):
        two.kind("pitch")
    with pytest.raises(UnknownName, match=r"There is no control kind 'pich'\. Did you mean 'pitch'"):
        two.kind("pich")
    with pytest.raises(ValueError, match="has the kind 'seed', which is one of the SDK's own"):
        ModalitySpec(name="tone", target="tone_plugin:Tones", kinds=("seed",), api_version=1)


def test_a_modality_says_for_which_interface_it_was_written():
    with pytest.raises(TypeError, match="api_version"):
        ModalitySpec(name="tone", target="tone_plugin:Tones")


@pytest.mark.parametrize(("facet", "words"), [("evaluation", "evaluated"), ("examples", "made for checks")])
def test_what_a_modality_does_not_have_is_said(facet, words):
    with pytest.raises(PluginError, match=f"Tones cannot be {words}: the modality 'tone' does not say how"):
        getattr(tone_plugin.Tones(), facet)


def test_old_places_are_found_with_a_warning():
    import aigc_sdk.contents
    import aigc_sdk.data
    import aigc_sdk.training

    for module, name in (
        (aigc_sdk.contents, "Image"),
        (aigc_sdk.contents, "read_pixels"),
        (aigc_sdk.data, "Piece"),
        (aigc_sdk.data, "Dataset"),
        (aigc_sdk.data, "load_texts"),
        (aigc_sdk.training, "ImageFamilyConfig"),
    ):
        with pytest.warns(DeprecationWarning, match=rf"{module.__name__}\.{name} is aigc_\w+\.\w+\.\w+ now"):
            assert getattr(module, name).__module__.startswith(("aigc_image", "aigc_text", "aigc_music"))
    with pytest.raises(AttributeError, match="has no attribute 'Sound'"):
        _ = aigc_sdk.contents.Sound


# ---------------------------------------------------------------- what one modality does wrong harms no other

FIRST = """
import aigc_sdk as sdk

@sdk.hookimpl
def aigc_register_modalities(register):
    register(sdk.ModalitySpec(name="aaa", target="{module}:Nothing", api_version=1))
    register(sdk.ModalitySpec(name="bbb", target="{module}:Bare", api_version=1))

def __getattr__(name):
    if name not in ("Bare", "Evaluation"):
        raise AttributeError(name)
    from aigc_sdk.contents import Item
    from aigc_sdk.modality import Modality, ModalityEvaluation

    class Thing(Item):
        suffixes = (".png", ".txt")

        def save(self, path): return path

    class Evaluation(ModalityEvaluation):
        def items_of(self, given): raise RuntimeError("not mine")
        def to_array(self, given): raise RuntimeError("not mine")
        def exhibits(self, items, caption): return []

    class Bare(Modality):
        name, plural, item = "bbb", "things", Thing
        facets = {{"evaluation": "{module}:Evaluation"}}
        def check_output(self, output): pass

    return {{"Bare": Bare, "Evaluation": Evaluation}}[name]
"""

USE_OTHERS = """
import sys
import numpy as np
import aigc_sdk as sdk

digits = sdk.generate("digits-vae", 40, seed=1)
assert sdk.measure("digits-features", digits).shape == (40, 64)
assert sdk.reproduce(digits[:1].save(sys.argv[1])[0])[0] == digits[0]
names = sdk.generate("names", 2, seed=1)
assert sdk.reproduce(names.save(sys.argv[1])[0])[0] == names[0]
other = sdk.generate("digits-vae", 40, seed=2).to_numpy()
assert sdk.evaluate(digits, other, metrics=["frechet"]).scores[0].value > 0
assert sdk.evaluate(digits.to_numpy(), other, metrics=["frechet"]).scores[0].value > 0
texts = [f"abc{i} def" for i in range(40)]
assert sdk.evaluate(texts, [text.upper() for text in texts], metrics=["ngrams"]).scores
print("used")
"""


def test_modalities_that_fail_or_lack_what_is_asked_harm_no_other(tmp_path):
    folder = tmp_path / "site"
    info = folder / "firsts-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: firsts\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[aigc_sdk]\nfirsts = firsts_plugin\n")
    (folder / "firsts_plugin.py").write_text(FIRST.format(module="firsts_plugin"))
    environment = {**os.environ, "PYTHONPATH": str(folder), "AIGC_SDK_CACHE": str(tmp_path / "cache")}
    assert run(environment, "-c", USE_OTHERS, str(tmp_path)).stdout == "used\n"
