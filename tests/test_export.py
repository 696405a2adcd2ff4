"""The ONNX exporter: what it writes, what it verifies, and what it refuses to write."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

import aigc_sdk as sdk
from aigc_onnx.convert import _parts
from aigc_onnx.exporter import OnnxExporter
from aigc_onnx.verify import compare_with_eager
from aigc_sdk.card import CARD_KEY, ModelCard
from aigc_sdk.errors import ExportFailed, InvalidRequest, PluginError, StorageError, UnknownName
from aigc_sdk.exporter import Exportable, Exporter
from aigc_sdk.generator import Generator
from aigc_sdk.registry import Registry, default_registry
from aigc_sdk.runtime.safety import check_model, graph_sha256
from aigc_sdk.training import EagerGenerator
from aigc_sdk.training.eager import rounded
from tiny_model import make_card, make_graph


class Sampler(nn.Module):
    """Eight by eight grey pixels from the seed; `spoil` is what a subclass does wrong."""

    def forward(self, seed, controls):
        levels = seed[:, None] * 37 + torch.arange(64) + controls["gain"][:, None].round().long()
        return (self.spoil(levels) & 255).to(torch.uint8).reshape(-1, 8, 8, 1)

    def spoil(self, levels):
        return levels


class Dense(Sampler):
    """A layer of 64 x 64 weights before the pixels."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(64, 64)

    def spoil(self, levels):
        return (100 * self.layer((levels & 255) / 255.0)).round().long()


class MixesRows(Sampler):
    def spoil(self, levels):
        return levels + (levels & 15).sum(0, keepdim=True)


class DrawsItsOwn(Sampler):
    def spoil(self, levels):
        return levels + (torch.rand(levels.shape) * 50).long()


class DiffersWhenTraced(Sampler):
    def spoil(self, levels):
        return levels + (100 if torch.compiler.is_compiling() else 0)


def exportable(sampler: nn.Module) -> Exportable:
    graph = make_graph()
    card = make_card(graph, controls=tuple(c for c in make_card(graph).controls if c.name == "gain"), golden=None)
    return Exportable(sampler.eval(), EagerGenerator(sampler, card))


def assert_nothing_written(folder: Path) -> None:
    assert list(folder.iterdir()) == []


def test_export_good_sampler_writes_file_and_card_and_says_what_it_verified(tmp_path):
    report = OnnxExporter().export(exportable(Sampler()), tmp_path / "good.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["good.card.json", "good.onnx"]
    assert [check.name for check in report.checks] == ["contract", "independent items", "same as eager torch"]
    assert "0 of" in report.checks[2].measured and "N = 1, 3, 64, 17" in report.checks[2].measured
    assert len(sdk.load(report.path).generate(100)) == 100


@pytest.mark.parametrize(
    ("sampler", "message"),
    [
        (MixesRows(), r"\d+ of \d+ values differ, by at most \d+\. An item depends on its neighbours"),
        (DrawsItsOwn(), "RandomUniform"),
        (DiffersWhenTraced(), "differs from eager torch: .* allowed are 1e-04"),
    ],
)
def test_export_bad_sampler_raises_and_writes_nothing(tmp_path, sampler, message):
    with pytest.raises(ExportFailed, match=message):
        OnnxExporter().export(exportable(sampler), tmp_path / "bad.onnx")
    assert_nothing_written(tmp_path)


@pytest.mark.parametrize(("storage", "size", "most"), [("float16", 2, 0.1), ("int8", 1, 0.5)])
def test_export_stores_in_fewer_bits_what_loses_nothing_by_it(tmp_path, storage, size, most):
    torch.manual_seed(0)
    sampler = Dense()
    sizes = {}
    for name, module in (("whole", sampler), ("small", rounded(sampler, storage))):
        OnnxExporter().export(exportable(module), tmp_path / f"{name}.onnx")
        sizes[name] = sum(
            4096 * onnx.helper.tensor_dtype_to_np_dtype(weights.data_type).itemsize
            for weights in onnx.load(tmp_path / f"{name}.onnx").graph.initializer
            if list(weights.dims) == [64, 64]
        )
    assert sizes == {"whole": 4 * 4096, "small": size * 4096}
    gap = sdk.generate(tmp_path / "small.onnx", 500, seed=0).to_numpy() - np.int64(
        sdk.generate(tmp_path / "whole.onnx", 500, seed=0).to_numpy()
    )
    assert 0 < (gap != 0).mean() < most  # of numbers that are rounded, some fall to the other side


@pytest.mark.parametrize("shape", [(64, 64), (32, 8, 3, 3)])
def test_weights_of_int8_are_whole_steps_of_a_scale_for_each_unit(shape):
    layer = nn.Linear(64, 64) if len(shape) == 2 else nn.Conv2d(8, 32, 3)
    with torch.no_grad():
        layer.weight[1] *= 1000
        layer.weight[2] = 0
    small = rounded(layer, "int8")
    rows, wanted = (each.weight.detach().double().flatten(1) for each in (small, layer))
    scale = rows.abs().amax(1, keepdim=True) / 127
    steps = (rows / scale.clamp(min=1e-30)).round()
    assert torch.equal(steps * scale, rows) and steps[3].abs().max() == 127
    assert ((rows - wanted).abs() <= 0.501 * scale).all()
    assert torch.equal(small.bias, layer.bias) and torch.equal(rounded(small, "int8").weight, small.weight)
    for stored in (small.weight, small.weight.T) if len(shape) == 2 else (small.weight,):
        array = stored.detach().numpy()
        parts = _parts(array)
        assert parts["int8"].dtype == np.int8 and np.array_equal(parts["int8"] * parts["scale"], array)
    assert _parts(layer.weight.detach().numpy()) == {}


class Noting(Generator):
    """Makes large black images, and notes how many it is asked for."""

    def __init__(self, card):
        self.card, self.provider, self.sizes = card, "noting", []

    def run(self, seeds, controls, *, deadline=None):
        self.sizes.append(len(seeds))
        return {"content": np.zeros((len(seeds), 512, 512, 1), np.uint8)}


def test_all_sizes_are_compared_however_large_the_images():
    model = Noting(make_card(make_graph()))
    check = compare_with_eager(model, model, least_values=1)
    assert set(model.sizes) == {1, 3, 17, 64} and "0 of" in check.measured


def test_weights_beyond_float16_raise():
    sampler = Dense()
    with torch.no_grad():
        sampler.layer.weight[3, 5] = 1e5
    with pytest.raises(ExportFailed, match=r"layer\.weight is beyond what float16 can hold"):
        rounded(sampler, "float16")
    assert sampler.layer.weight[3, 5] == 1e5


class Foreign(Exporter):
    """An exporter of a plugin: what it is called for is what it does."""

    def export(self, model, path):
        return {"raises": lambda: 1 / 0, "leaves": lambda: sys.exit("no licence"), "returns": lambda: None}[path.stem]()


@pytest.mark.parametrize(
    ("does", "words"), [("raises", "ZeroDivisionError"), ("leaves", "SystemExit: no licence"), ("returns", "TypeError")]
)
def test_export_with_an_exporter_that_fails_names_it(tmp_path, trained, monkeypatch, does, words):
    spec = sdk.ExporterSpec(name="foreign", target="test_export:Foreign")
    registry = Registry([])
    registry.plugins = [*default_registry().plugins, replace(default_registry().plugins[0], specs=[("format", spec)])]
    monkeypatch.setattr("aigc_sdk.training.run.default_registry", lambda: registry)
    with pytest.raises(PluginError, match=f"The exporter 'foreign' failed: {words}"):
        sdk.export(trained, tmp_path / does, format="foreign")


def test_export_wrong_suffix_raises(tmp_path, trained):
    with pytest.raises(InvalidRequest, match=r"\.onnx"):
        sdk.export(trained, tmp_path / "model.bin")


def test_export_of_or_to_no_path_raises(tmp_path, trained):
    with pytest.raises(InvalidRequest, match="run is 3; give a path"):
        sdk.export(3, tmp_path / "a.onnx")
    with pytest.raises(InvalidRequest, match="path is None; give a path"):
        sdk.export(trained, None)


def test_export_run_whose_config_lacks_what_has_a_default(tmp_path, trained):
    for name in ("run.json", "checkpoint.safetensors"):
        shutil.copy(trained.folder / name, tmp_path)
    record = json.loads((tmp_path / "run.json").read_text())
    del record["config"]["version"]
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert sdk.load(sdk.export(tmp_path, tmp_path / "a.onnx")).card.version == "0.1.0"


def test_export_unknown_task_or_format_raises(tmp_path, trained):
    with pytest.raises(UnknownName, match="Did you mean 'interpolate'"):
        sdk.export(trained, tmp_path / "a.onnx", task="interpolat")
    with pytest.raises(UnknownName, match="onnx"):
        sdk.export(trained, tmp_path / "a.onnx", format="onx")


def test_export_folder_that_is_a_file_raises_and_writes_nothing(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        OnnxExporter().export(exportable(Sampler()), tmp_path / "file" / "a.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_export_onto_a_folder_raises_and_writes_nothing(tmp_path):
    (tmp_path / "a.onnx").mkdir()
    with pytest.raises(StorageError, match="is a folder"):
        OnnxExporter().export(exportable(Sampler()), tmp_path / "a.onnx")
    assert [path.name for path in tmp_path.rglob("*")] == ["a.onnx"]


@pytest.mark.slow
def test_export_full_disk_raises_and_keeps_the_old_file(tmp_path, trained):
    old = tmp_path / "model.onnx"
    old.write_bytes(b"old")
    (tmp_path / "model.card.json").write_bytes(b"old card")
    program = (
        "import resource, signal, sys, aigc_sdk as sdk, aigc_sdk.training\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try: sdk.export(sys.argv[1], sys.argv[2])\n"
        "except sdk.errors.StorageError as error: print('ours:', error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(trained.folder), str(old)], capture_output=True, text=True, timeout=300
    )
    assert done.stdout.startswith(f"ours: Cannot write {old}: "), done.stderr
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {
        "model.onnx": b"old",
        "model.card.json": b"old card",
    }


def test_file_of_a_trained_model_is_clean(trained):
    for path in trained.models.values():
        data = path.read_bytes()
        for trace in (b"/tmp", b"site-packages", b".py", b"aigc_vae", b"stack_trace"):
            assert trace not in data.replace(b"'", b""), trace
        model = onnx.load_from_string(data)
        assert not any(node.metadata_props or node.doc_string for node in model.graph.node)
        assert not model.functions
        assert {opset.domain: opset.version for opset in model.opset_import} == {"": 20}
        assert model.ir_version <= 10


def test_file_of_a_trained_model_holds_the_card_beside_it(trained):
    for task, path in trained.models.items():
        inside = {entry.key: entry.value for entry in onnx.load(path).metadata_props}
        beside = path.with_suffix(".card.json").read_text(encoding="utf-8")
        assert inside == {CARD_KEY: beside}
        card = ModelCard.from_json(beside)
        assert (card.task, card.name, card.data.n) == (task, "digits-8x8", 1797)
        assert card.golden is not None and len(card.golden.seeds) == 4
        assert card.scores[0]["metric"] == "negative_elbo"


def test_score_added_later_keeps_the_identity(trained):
    model = onnx.load(trained.folder / "model.onnx")
    values = json.loads(model.metadata_props[0].value)
    values["scores"].append({"metric": "later", "value": 1.0})
    model.metadata_props[0].value = json.dumps(values)
    card = check_model(model.SerializeToString(), "model.onnx")
    assert graph_sha256(model) == card.graph_sha256 == values["graph_sha256"]


def test_trained_file_equals_eager_torch(trained, digits_8x8):
    for task, path in trained.models.items():
        eager, exported = sdk.Model(trained.exportable(task).eager), sdk.load(path)
        pixels = {"image": digits_8x8[0][:1000], "mask": np.indices((8, 8))[0] < 4}
        controls = {name: value for name, value in pixels.items() if exported.card.control(name)}
        wanted, got = (
            model.generate(1000, seed=5, temperature=0.9, **controls).to_numpy().astype(int)
            for model in (eager, exported)
        )
        gap = np.abs(wanted - got)
        assert gap.max() <= 1
        assert (gap > 0).mean() <= 1e-4


@pytest.mark.parametrize("threads", [1, 2])
def test_trained_file_items_are_independent_on_any_number_of_threads(trained, threads):
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(trained.models["generate"]), options, providers=["CPUExecutionProvider"])

    def run(rows: slice) -> np.ndarray:
        seeds = np.arange(64, dtype=np.int64)[rows] * 999_999_937
        feeds = {"seed": seeds, "label": np.full(len(seeds), -1), "temperature": np.ones(len(seeds), np.float32)}
        return session.run(["content"], feeds)[0]

    whole = run(slice(0, 64))
    for k in range(64):
        assert np.array_equal(run(slice(k, k + 1))[0], whole[k])
        start = min(k, 57)
        assert np.array_equal(run(slice(start, start + 7))[k - start], whole[k])
