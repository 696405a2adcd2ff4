"""Golden items: what they hold, how they are compared, and what a miss means on which device."""

import hashlib
import json
import logging
import platform
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import onnx
import pytest

import aigc_sdk as sdk
from aigc_onnx.verify import check_independence, compare_with_eager
from aigc_sdk import testing
from aigc_sdk.card import CARD_KEY, Golden, ModelCard, OutputSpec, Packed
from aigc_sdk.errors import ContractBroken, DeviceUnavailable, ExportFailed, GenerationFailed, InvalidModel
from aigc_sdk.generation import selftest
from aigc_sdk.generator import Generator
from aigc_sdk.likeness import Gap, Made, compare_arrays, compare_items, same_rows
from aigc_sdk.runtime import OnnxGenerator, session
from aigc_sdk.runtime.devices import choose_providers
from aigc_sdk.runtime.loading import made_by
from aigc_sdk.runtime.safety import Verdict, check_model, trust
from aigc_sdk.testing import example_feeds, feeds_of
from tiny_model import expected, make_card, make_graph, to_bytes
from tiny_music import make_music_card, make_music_graph, write_tiny_music

MODELS = Path(str(files("aigc_zoo"))) / "models"


def with_golden(path: Path, target: Path, change) -> Path:
    """Copy a model file with other golden items in its card."""
    model = onnx.load(path)
    card = ModelCard.from_json(next(entry.value for entry in model.metadata_props if entry.key == CARD_KEY))
    return trusted(target, to_bytes_of(model, replace(card, golden=change(card.golden))))


def trusted(path: Path, data: bytes) -> Path:
    """Write a model file that is loaded without a trial in another process, which takes longer than all else here."""
    path.write_bytes(data)
    trust(data)
    return path


def write_tiny(path: Path, golden: Golden) -> Path:
    return trusted(path, to_bytes(make_graph(), make_card(make_graph(), golden=golden)))


def to_bytes_of(model: onnx.ModelProto, card: ModelCard) -> bytes:
    del model.metadata_props[:]
    return to_bytes(model, card)


def other_content(golden: Golden, dtype: str, change) -> Golden:
    return replace(golden, content=Packed.of(change(golden.array(dtype).copy())).data)


# ---------------------------------------------------------------- what cards hold


@pytest.mark.parametrize("path", sorted(MODELS.glob("*.card.json")), ids=lambda path: path.name)
def test_card_from_before_parts_is_written_again_byte_for_byte(path):
    text = path.read_text(encoding="utf-8")
    for card in (ModelCard.from_json(text), ModelCard.from_checked_json(text)):
        assert card.to_json() == text


def test_card_with_parts_goes_there_and_back():
    card = make_music_card(make_music_graph())
    values = json.loads(card.to_json())["golden"]
    assert sorted(values["parts"]) == ["key", "meter", "tempo"]
    assert values["provider"].startswith("CPUExecutionProvider (onnxruntime ")
    assert values["provider"].endswith(platform.machine())
    for again in (ModelCard.from_json(card.to_json()), ModelCard.from_checked_json(card.to_json())):
        assert again == card and again.to_json() == card.to_json()
    tempo = again.golden.parts["tempo"].array("float32")
    assert tempo.tolist() == [90, 100, 110, 140]  # 90 + 10 (seed & 7) of seeds 0, 1, 2 and 13


def test_music_file_with_golden_parts_passes_all_checks(tmp_path):
    path = write_tiny_music(tmp_path / "tune.onnx", "tempo")
    assert "check_items_do_not_depend_on_others" in testing.check_model(path)
    assert selftest(path) == (True, "4 of 4 pieces are the same")


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"meter": None, "key": None}, r"have the parts \['tempo'\]"),
        ({"mood": np.zeros(4)}, r"have the parts \['key', 'meter', 'mood', 'tempo'\]"),
        ({"tempo": np.full((4, 1), 90, np.float32)}, r"'tempo' of shape \(4, 1\), its output \(4,\)"),
        ({"tempo": np.array([90, 90, 90, np.nan], np.float32)}, "the golden tempo holds NaN"),
        ({"key": np.zeros(4, np.int32)}, "does not hold 32 bytes"),
    ],
)
def test_golden_parts_that_are_not_the_models_are_refused(parts, message):
    graph = make_music_graph()
    golden = make_music_card(graph).golden
    changed = golden.parts | {name: part if part is None else Packed.of(part) for name, part in parts.items()}
    kept = {name: part for name, part in changed.items() if part is not None}
    card = make_music_card(graph, golden=replace(golden, parts=kept))
    with pytest.raises(InvalidModel, match=message):
        check_model(to_bytes(graph, card), "tune.onnx")


def test_golden_parts_of_an_image_are_refused():
    graph = make_graph()
    golden = replace(make_card(graph).golden, parts={"tempo": Packed.of(np.zeros(4, np.float32))})
    with pytest.raises(InvalidModel, match=r"have the parts \['tempo'\]"):
        check_model(to_bytes(graph, make_card(graph, golden=golden)), "tiny.onnx")


def test_a_model_of_a_modality_that_nothing_brings_is_refused_by_name():
    graph = make_graph()
    with pytest.raises(InvalidModel, match=r"no plugin that is installed knows what .*'smell'.*image, music, text"):
        check_model(to_bytes(graph, replace(make_card(graph), modality="smell")), "tiny.onnx")


# ---------------------------------------------------------------- how they are compared


@pytest.mark.parametrize(
    ("name", "wrong", "dtype"), [("tempo", 999, "float32"), ("meter", 3, "int64"), ("key", 11, "int64")]
)
def test_selftest_other_golden_part_fails_and_is_named(tmp_path, name, wrong, dtype):
    path = write_tiny_music(tmp_path / "tune.onnx")

    def change(golden: Golden) -> Golden:
        part = golden.parts[name].array(dtype)
        return replace(golden, parts={**golden.parts, name: Packed.of(np.full_like(part, wrong))})

    passed, measured = selftest(with_golden(path, tmp_path / "other.onnx", change))
    assert not passed and f"{name} differs in 4 of 4" in measured


def test_selftest_of_a_card_without_parts_goes_by_the_content(tmp_path):
    path = write_tiny_music(tmp_path / "tune.onnx")
    old = with_golden(path, tmp_path / "old.onnx", lambda golden: replace(golden, parts={}, provider=""))
    assert selftest(old) == (True, "4 of 4 pieces are the same")
    assert len(sdk.load(old).generate(2)) == 2


def test_selftest_notes_that_are_missing_fail(tmp_path):
    def shorter(content):
        content[:, 1:] = 0  # a golden piece of one note, of a model that makes two
        return content

    path = write_tiny_music(tmp_path / "tune.onnx")
    other = with_golden(path, tmp_path / "other.onnx", lambda golden: other_content(golden, "float32", shorter))
    assert selftest(other) == (False, "0 of 4 pieces are the same")


@pytest.mark.parametrize(
    ("made", "wanted", "differing", "largest"),
    [
        ([0.0, 0.9], [0.0, 0.1], 1, 8000),  # both 0 as whole numbers
        ([0.0, 1e-5], [0.0, 0.0], 0, 0.1),
        ([1000.05], [1000.0], 0, 0.5),
        ([1000.5], [1000.0], 1, 5),
        ([np.nan], [0.0], 1, np.inf),
        ([0.0], [np.nan], 1, np.inf),
        ([np.inf], [np.inf], 0, 0),
    ],
)
def test_gap_of_floats_counts_what_rounding_does_not_explain(made, wanted, differing, largest):
    gap = Gap.of(np.array(made, np.float32), np.array(wanted, np.float32))
    assert gap.differing == differing and gap.largest == pytest.approx(largest, rel=1e-3)


def test_gap_of_integers_beyond_float64_is_exact():
    assert Gap.of(np.array([2**53 + 1]), np.array([2**53])).differing == 1
    assert Gap.of(np.array([-(2**63)]), np.array([2**63 - 1])).largest == 2.0**64


def test_gap_of_other_lengths_counts_the_rest():
    assert Gap.of(np.zeros((3, 2)), np.zeros((1, 2))) == Gap(6, 4, np.inf)
    assert Gap.of(np.zeros(3, np.int64), np.zeros(3, np.int32)).differing == 3


@pytest.mark.parametrize(
    ("differing", "by", "passed", "is_gross"),
    [(1, 1, True, False), (10, 1, False, False), (11, 1, False, True), (1, 10, False, False), (1, 11, False, True)],
)
def test_compare_arrays_is_gross_beyond_a_hundredth_or_tenfold(differing, by, passed, is_gross):
    wanted = np.full((1, 1000), 100, np.uint8)
    made = wanted.copy()
    made[0, :differing] += by
    likeness = compare_arrays(made, wanted)
    assert (likeness.passed, likeness.is_gross) == (passed, is_gross)


def test_compare_items_of_floats_of_one_size_compares_floats():
    wanted = [Made(np.full(50, 0.25, np.float32), {})] * 4
    wave = [Made(np.full(50, -0.25, np.float32), {})] * 4  # within 1, so that all are 0 as whole numbers
    assert compare_items(wanted, wanted, has_length=False).passed
    assert compare_items(wave, wanted, has_length=False).is_gross


def test_same_rows_of_text_are_equal_and_of_floats_within_rounding():
    assert same_rows(np.array([[97, 98], [97, 99]]), np.array([[97, 98], [97, 98]])).tolist() == [True, False]
    made, wanted = np.array([[1.00005], [1.001]]), np.array([[1.0], [1.0]])
    assert same_rows(made, wanted).tolist() == [True, False]


class Waves(Generator):
    """Floats of one size: a sine of each seed, times `gain`."""

    provider = "numpy"

    def __init__(self, gain: float) -> None:
        self.gain = gain
        self.card = make_card(
            make_graph(), controls=(), golden=None, output=OutputSpec(dtype="float32", shape=(50,)), name="waves"
        )

    def run(self, seeds, controls, *, deadline=None):
        wave = np.sin(seeds[:, None] % 97 + np.arange(50)) * self.gain
        return {"content": wave.astype(np.float32)}


def test_compare_with_eager_of_floats_compares_floats():
    assert compare_with_eager(Waves(0.5), Waves(0.5 + 1e-6), least_values=1).measured.startswith("0 of ")
    with pytest.raises(ExportFailed, match=r"The exported file differs from eager torch: .* values differ"):
        compare_with_eager(Waves(0.5), Waves(0.4), least_values=1)


# ---------------------------------------------------------------- what a miss means


def test_load_gross_miss_of_a_real_file_names_the_device_each_time(tmp_path):
    def inverted(content):
        return 255 - content

    path = with_golden(
        MODELS / "digits-vae.onnx", tmp_path / "digits.onnx", lambda golden: other_content(golden, "uint8", inverted)
    )
    for _ in range(2):  # a gross miss is not recorded as seen
        with pytest.raises(GenerationFailed, match=r"digits\.onnx makes other content on CPUExecutionProvider \(onnx"):
            sdk.generate(path, 2)
    assert not Verdict.load(hashlib.sha256(path.read_bytes()).hexdigest()).golden
    assert not selftest(path)[0]


def test_load_gross_miss_on_the_device_that_made_the_items_warns(tmp_path, caplog):
    here = made_by(OnnxGenerator.from_bytes(to_bytes(make_graph(), make_card(make_graph()))))
    seeds = np.array(make_card(make_graph()).golden.seeds)
    golden = other_content(make_card(make_graph()).golden, "uint8", lambda _: expected(seeds, gain=0.5))
    path = write_tiny(tmp_path / "tiny.onnx", golden=replace(golden, provider=here))
    with caplog.at_level(logging.WARNING, "aigc_sdk"):
        assert len(sdk.load(path).generate(2)) == 2
    assert "tiny.onnx makes other content here than where it was exported" in caplog.text


@pytest.mark.parametrize("version", ["1.18.0", ""])
def test_load_gross_miss_on_another_version_says_what_made_the_items(tmp_path, version):
    seeds = np.array(make_card(make_graph()).golden.seeds)
    golden = other_content(make_card(make_graph()).golden, "uint8", lambda _: expected(seeds, gain=0.5))
    maker = f"CPUExecutionProvider (onnxruntime {version}) on x86_64" if version else ""
    path = write_tiny(tmp_path / "tiny.onnx", golden=replace(golden, provider=maker))
    with pytest.raises(GenerationFailed) as found:
        sdk.load(path)
    assert (maker or "the one that exported it") in str(found.value)


def test_load_gross_miss_of_a_part_is_an_error(tmp_path):
    path = write_tiny_music(tmp_path / "tune.onnx")

    def change(golden: Golden) -> Golden:
        return replace(golden, parts={**golden.parts, "tempo": Packed.of(np.full(4, 999, np.float32))}, provider="x")

    with pytest.raises(GenerationFailed, match=r"than x: 0 of 4 pieces are the same; tempo differs in 4 of 4"):
        sdk.load(with_golden(path, tmp_path / "other.onnx", change))


def test_inspect_shows_a_file_whose_golden_items_are_others(tmp_path):
    from click.testing import CliRunner

    from aigc_sdk.cli import app

    golden = other_content(make_card(make_graph()).golden, "uint8", lambda content: 255 - content)
    path = write_tiny(tmp_path / "tiny.onnx", golden=golden)
    done = CliRunner().invoke(app, ["inspect", str(path)])
    assert done.exit_code == 0 and "tiny" in done.output


class Unable:
    """onnxruntime with a provider that starts with no file."""

    def __init__(self, real) -> None:
        self.real = real

    def __call__(self, model, options, providers, **rest):
        if providers[0][0] == "OpenVINOExecutionProvider":
            raise RuntimeError("This is an invalid model. Error: the graph is not acyclic.")
        return self.real(model, options, providers=providers, **rest)


def test_load_file_that_only_this_device_cannot_run_blames_the_device(tiny_path, monkeypatch):
    trust(tiny_path.read_bytes())
    known = ["OpenVINOExecutionProvider", "CPUExecutionProvider"]
    monkeypatch.setattr(session.ort, "get_available_providers", lambda: known)
    monkeypatch.setattr(session.ort, "InferenceSession", Unable(session.ort.InferenceSession))
    with pytest.raises(DeviceUnavailable, match=r"OpenVINOExecutionProvider of onnxruntime .* cannot load tiny\.onnx"):
        sdk.load(tiny_path, device="openvino")
    graph = make_graph()
    graph.graph.node[0].input[0] = "nowhere"
    trusted(tiny_path, to_bytes(graph, make_card(graph)))
    with pytest.raises(InvalidModel, match="onnxruntime cannot load"):  # the CPU cannot either
        sdk.load(tiny_path, device="openvino")


def test_load_operator_that_this_build_lacks_blames_the_device(tiny_path, monkeypatch):
    trust(tiny_path.read_bytes())
    lacking = session.onnxruntime_pybind11_state.NotImplemented

    def unable(*_, **__):
        raise lacking("Could not find an implementation for BitwiseAnd(18)")

    monkeypatch.setattr(session.ort, "InferenceSession", unable)
    with pytest.raises(DeviceUnavailable, match=r"CPUExecutionProvider of onnxruntime .* lacks an operator"):
        sdk.load(tiny_path)


def test_choose_providers_cuda_computes_in_whole_float32():
    (_, options), _ = choose_providers("cuda:1", ["CUDAExecutionProvider", "CPUExecutionProvider"])
    assert options == {"device_id": "1", "use_tf32": "0"}


# ---------------------------------------------------------------- neighbours, and how far they are padded


@pytest.mark.parametrize("counted", ["pitch", "tempo"])
@pytest.mark.parametrize("block", [1, 16])  # examples of prompts are shorter than 16
def test_check_independence_of_padding_is_an_error(tmp_path, counted, block):
    path = write_tiny_music(tmp_path / "tune.onnx", counted, padding=block)
    card = OnnxGenerator.open(path).card
    with pytest.raises(ExportFailed, match="or on how far what is fed is padded"):
        check_independence(path.read_bytes(), card)
    with pytest.raises(ContractBroken, match="check_items_do_not_depend_on_others"):
        testing.check_model(path)


@pytest.mark.parametrize("counted", ["pitch", "tempo", "nothing"])
def test_check_independence_of_what_is_fed_passes(tmp_path, counted):
    path = write_tiny_music(tmp_path / "tune.onnx", counted)
    assert check_independence(path.read_bytes(), OnnxGenerator.open(path).card).name == "independent items"


def test_feeds_of_rows_are_cut_to_their_longest(tmp_path):
    controls = make_music_card(make_music_graph()).controls
    _, feeds = example_feeds(controls, 64, 5)
    lengths = (feeds["prompt"] != -1).sum(1)
    assert len(set(lengths.tolist())) > 5
    for i, length in enumerate(lengths.tolist()):
        row = feeds_of(controls, feeds, slice(i, i + 1))["prompt"]
        assert row.shape == (1, max(1, length)) and np.array_equal(row[0, :length], feeds["prompt"][i, :length])
