"""The training loop: what a run folder holds, when it stops, and what goes wrong clearly."""

import errno
import logging
import math
import os
import subprocess
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image as pil
from safetensors import safe_open

import aigc_sdk as sdk
from aigc_image.data import load_data
from aigc_sdk.errors import (
    InvalidConfig,
    InvalidData,
    InvalidRequest,
    PluginError,
    StorageError,
    TrainingFailed,
    UnknownName,
)
from aigc_sdk.registry import Registry, default_registry
from aigc_sdk.training import Family, FamilyConfig, Losses, Run, lock, loop, plan, progress, trainer
from aigc_sdk.training.checkpoint import load_checkpoint
from aigc_sdk.training.eager import rounded, weights_sha256
from aigc_sdk.training.trainer import prepare
from aigc_vae.family import VAE

SMALL = {"latent": 4, "width": 8, "blocks": 0, "batch_size": 32}


def test_run_folder_records_what_was_done(trained, digits_8x8):
    names = {path.relative_to(trained.folder).as_posix() for path in trained.folder.rglob("*") if path.is_file()}
    assert {"run.json", "metrics.jsonl", "checkpoint.safetensors"} <= names
    assert {"model.onnx", "model.card.json", "model.interpolate.onnx", "model.interpolate.card.json"} <= names
    assert not any(name.endswith(".tmp") for name in names)
    record = trained.record
    assert (record.family, record.seed, record.config["latent"], record.data.n) == ("vae", 3, 8, 1797)
    assert record.environment["torch"] == torch.__version__
    assert sum(record.data.split.values()) == 1797
    assert record.labels == tuple("0123456789")
    assert record.data_report["n"] == 1797
    assert Run.open(trained.folder) == trained


def test_run_metrics_tell_loss_speed_and_validation(trained):
    lines = [line for line in trained.metrics if "validation" not in line]
    assert lines[-1]["items_per_s"] > 0 and lines[-1]["epoch"] == 12
    validations = [line["validation"]["negative_elbo"] for line in trained.metrics if "validation" in line]
    assert len(validations) == 12
    assert validations[-1] < validations[0] - 3


def test_run_samples_are_a_grid_from_fixed_seeds(trained):
    grids = sorted((trained.folder / "samples").iterdir())
    with pil.open(grids[-1]) as grid:
        shown = np.asarray(grid)
    again = np.asarray(sdk.generate(trained.folder, 64, seed=0).grid())
    assert shown.shape == again.shape == (78, 78)
    assert np.abs(shown.astype(int) - again).max() <= 1


def test_run_checkpoint_is_safetensors_with_both_weights(trained):
    with safe_open(trained.folder / "checkpoint.safetensors", "pt") as file:
        names = set(file.keys())
    assert {name.partition(".")[0] for name in names} == {"ema", "trained", "optimizers", "random"}
    state = load_checkpoint(trained.folder)
    assert state["clock"]["step"] == trained.metrics[-1]["step"] and state["finished"]
    assert state["ema"].keys() == state["trained"].keys() == trained.family().state_dict().keys()


def test_trained_model_makes_the_digit_that_was_asked_for(trained, digits_8x8):
    from sklearn.neighbors import KNeighborsClassifier

    images, labels = digits_8x8
    judge = KNeighborsClassifier(3).fit(images.reshape(len(images), -1), labels)
    asked = np.arange(500) % 10
    made = sdk.generate(trained.folder, seed=1, label=asked.tolist(), temperature=0.5).to_numpy()
    assert (judge.predict(made.reshape(500, -1)) == asked).mean() > 0.7


def test_train_same_seed_gives_the_same_weights(tmp_path, stripes, no_export):
    runs = [
        sdk.train("vae", stripes, out=tmp_path / str(i), seed=seed, steps=12, **SMALL)
        for i, seed in enumerate((1, 1, 2))
    ]
    one, same, other = (weights_sha256(run.family()) for run in runs)
    assert one == same
    assert one != other


def test_train_leaves_the_callers_random_state_alone(tmp_path, stripes, no_export):
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    sdk.train("vae", stripes, out=tmp_path / "run", steps=2, **SMALL)
    assert torch.equal(torch.rand(3), wanted)


@pytest.mark.parametrize(
    ("limits", "steps"),
    [({"steps": 5}, 5), ({"epochs": 2}, 16), ({"epochs": None, "steps": 3}, 3), ({"epochs": 1, "steps": 100}, 8)],
)
def test_train_stops_at_the_first_limit(tmp_path, stripes, no_export, limits, steps):
    run = sdk.train("vae", stripes, out=tmp_path / "run", **SMALL, **limits)
    assert run.metrics[-1]["step"] == steps


def test_train_stops_after_minutes(tmp_path, stripes, no_export):
    run = sdk.train("vae", stripes, out=tmp_path / "run", epochs=None, minutes=0.05, **SMALL)
    assert 0.01 <= run.metrics[-1]["minutes"] < 0.5  # what comes after the last step counts too
    assert run.metrics[-1]["step"] > 3


def test_train_writes_grids_after_a_minute_and_then_at_doubling_times(tmp_path, stripes, no_export, monkeypatch):
    minutes = iter(x / 10 for x in range(1, 10_000))
    monkeypatch.setattr(
        progress, "time", SimpleNamespace(monotonic=lambda: 60 * next(minutes))
    )  # each look at the clock takes six seconds
    found = []
    monkeypatch.setattr(loop, "_write_samples", lambda _run, _trainer, _family, step: found.append(step))
    run = sdk.train("vae", stripes, out=tmp_path / "run", steps=60, checkpoint_minutes=1000, **SMALL)
    at = [line["minutes"] for line in run.metrics if "loss" in line]
    first, *others = found
    assert found == sorted(set(found)) and found[-1] == 60
    assert first <= 5 and 3 <= len(others) <= math.log2(at[-1]) + 2
    assert max(found[:-1]) <= 40  # the end brings others


def test_train_without_labels_makes_an_unconditional_model(tmp_path, stripes, no_export):
    run = sdk.train("vae", stripes[0], out=tmp_path / "run", steps=2, **SMALL)
    assert [control.name for control in run.exportable("generate").eager.card.controls] == ["temperature"]


def test_train_reports_progress(tmp_path, stripes, no_export, caplog):
    with caplog.at_level(logging.INFO, "aigc_sdk"):
        sdk.train("vae", stripes, out=tmp_path / "run", steps=2, **SMALL)
    assert "step 2 of 2 (100 %), epoch 1, loss" in caplog.text and "images/s" in caplog.text
    assert "negative_elbo" in caplog.text and "the model files come now: generate" in caplog.text
    assert "ends too early: about 2 steps are few" in caplog.text


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"latnt": 3}, UnknownName, "Did you mean 'latent'"),
        ({"latent": 0}, InvalidConfig, "latent is 0: .* greater than or equal to 1"),
        ({"latent": "many"}, InvalidConfig, "latent is 'many'"),
        ({"learning_rate": float("nan")}, InvalidConfig, "learning_rate"),
        ({"beta": -1}, InvalidConfig, "beta is -1"),
        ({"precision": "float8"}, InvalidConfig, "'auto', 'float32' or 'bfloat16'"),
    ],
)
def test_train_bad_option_raises_and_writes_nothing(tmp_path, stripes, options, error, message):
    with pytest.raises(error, match=message):
        sdk.train("vae", stripes, out=tmp_path / "run", **options)
    assert list(tmp_path.iterdir()) == []


def test_train_unknown_family_raises(tmp_path, stripes):
    with pytest.raises(UnknownName, match="Did you mean 'vae'"):
        sdk.train("vea", stripes, out=tmp_path / "run")


def test_train_images_too_large_raises_and_writes_nothing(tmp_path):
    with pytest.raises(InvalidData, match="200 x 200"):
        sdk.train("vae", np.random.default_rng(0).integers(0, 256, (10, 200, 200, 1), np.uint8), out=tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_train_out_that_is_not_empty_raises_and_keeps_it(tmp_path, stripes):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="not an empty folder"):
        sdk.train("vae", stripes, out=tmp_path, steps=1)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_train_folder_with_a_name_of_other_letters_trains(tmp_path, stripes, no_export):
    run = sdk.train("vae", stripes, out=tmp_path / "数字 1", steps=1, **SMALL)
    assert run.record.name == "1" and run.exportable("generate").eager.card.name == "1"


def test_train_is_no_concern_of_policy_plugins(tmp_path, stripes, no_export, monkeypatch):
    def asked(*_, **__):
        raise AssertionError("a policy was asked")

    monkeypatch.setattr(type(default_registry()), "hooks", lambda self, name: [asked])
    sdk.train("vae", stripes, out=tmp_path / "run", steps=1, **SMALL)


def test_validate_counts_every_item_once(tmp_path, stripes, no_export, monkeypatch):
    seen = []
    monkeypatch.setattr(VAE, "validate", lambda self, batch: seen.append(len(batch["images"])) or {"figure": seen[-1]})
    run = sdk.train("vae", stripes, out=tmp_path / "run", steps=1, validation_fraction=0.3, **SMALL)
    n = run.record.data.split["validation"]
    assert sum(seen) == n and len(seen) > 1 and seen[-1] != seen[0]
    assert run.metrics[-1]["validation"]["figure"] == pytest.approx(sum(size * size for size in seen) / n)


def test_train_out_below_a_file_raises(tmp_path, stripes):
    (tmp_path / "file").write_text("x")
    with pytest.raises(StorageError, match="file"):
        sdk.train("vae", stripes, out=tmp_path / "file" / "run", steps=1)


def test_train_loss_that_explodes_raises_and_says_what_to_do(tmp_path, stripes, no_export):
    options = {"learning_rate": 1e18, "warmup_steps": 0, "steps": 50, "precision": "float32"}
    with pytest.raises(TrainingFailed, match="smaller learning_rate"):
        sdk.train("vae", stripes, out=tmp_path / "run", **options, **SMALL)


@pytest.mark.slow
def test_train_full_disk_raises_ours_and_leaves_no_temporary(tmp_path):
    program = (
        "import resource, sys, numpy as np, aigc_sdk as sdk, aigc_sdk.training, aigc_vae.family\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
        "images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, 1), 'uint8')\n"
        "try: sdk.train('vae', images, out=sys.argv[1], steps=2, batch_size=16)\n"
        "except sdk.errors.StorageError as error: print('ours:', error)\n"
    )
    run = [sys.executable, "-c", program, str(tmp_path / "run")]
    done = subprocess.run(run, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("ours: Cannot write"), done.stderr
    left = {path.name for path in (tmp_path / "run").rglob("*") if path.is_file()}
    assert left == {"run.json"}


def test_train_without_the_extra_says_the_pip_line(tmp_path):
    program = (
        "import sys\n"
        "sys.modules['torch'] = None\n"
        "import numpy as np, aigc_sdk as sdk\n"
        "try: sdk.train('vae', np.zeros((4, 8, 8, 1), 'uint8'), out=sys.argv[1])\n"
        "except sdk.errors.MissingPackage as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")], capture_output=True, text=True, timeout=60
    )
    assert "pip install 'aigc-sdk[train]'" in done.stdout, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("capabilities", "wanted", "chosen"),
    [
        ({"amx_bf16": True}, "auto", "bf16-mixed"),
        ({"avx512_bf16": True}, "auto", "bf16-mixed"),
        ({"avx2": True}, "auto", "32-true"),
        ({"avx2": True}, "bfloat16", "bf16-mixed"),
        ({"amx_bf16": True}, "float32", "32-true"),
    ],
)
def test_precision_follows_the_processor(monkeypatch, capabilities, wanted, chosen):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert trainer.precision(wanted) == chosen


def test_precision_without_kernels_for_it_is_float32_with_a_warning():
    script = "from aigc_sdk.training.trainer import precision\nprint(precision('bfloat16'), precision('auto'))"
    environment = os.environ | {"ONEDNN_MAX_CPU_ISA": "AVX2", "OMP_NUM_THREADS": "1"}  # which has none for an LSTM
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["32-true", "32-true"]
    assert "precision=bfloat16: this processor has no kernels for it" in done.stderr


@pytest.mark.parametrize(("precision", "mixed"), [("bfloat16", True), ("float32", False)])
def test_train_computes_in_the_precision_that_was_asked_for(
    tmp_path, stripes, no_export, monkeypatch, precision, mixed
):
    seen = set()
    training_step = VAE.training_step

    def spy(family, *arguments):
        seen.add(torch.is_autocast_enabled("cpu"))
        return training_step(family, *arguments)

    monkeypatch.setattr(VAE, "training_step", spy)
    sdk.train("vae", stripes, out=tmp_path / "run", steps=2, precision=precision, **SMALL)
    assert seen == {mixed}


def test_run_open_folder_of_something_else_raises(tmp_path):
    with pytest.raises(StorageError, match="not a run folder"):
        Run.open(tmp_path)


def test_run_broken_checkpoint_raises(tmp_path, stripes, no_export):
    run = sdk.train("vae", stripes, out=tmp_path / "run", steps=1, **SMALL)
    path = run.folder / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrainingFailed, match="does not hold the weights"):
        run.family()


class Slope(Family):
    """One weight on a slope of -100, down which SGD goes by the learning rate."""

    modality = "image"

    Config = FamilyConfig
    tasks = ("generate",)

    def build(self, data):
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def optimizers(self):
        return {"all": torch.optim.SGD([self.weight], lr=self.config.learning_rate)}

    def phases(self, step):
        return ("all",)

    def training_step(self, batch, phase, step, carry):
        return Losses(-100 * self.weight.sum()), carry


@pytest.mark.parametrize(("clip_norm", "gradient"), [(None, 100.0), (0.5, 0.5), (1000.0, 100.0)])
def test_step_clips_the_gradient_and_averages_the_weights(tmp_path, stripes, clip_norm, gradient):
    options = FamilyConfig(
        steps=30, batch_size=8, warmup_steps=0, clip_norm=clip_norm, ema_decay=0.6, precision="float32"
    )
    family = Slope(options)
    family.build(None)
    split = {"train": np.arange(256), "validation": np.arange(0), "test": np.arange(0)}
    training = prepare(tmp_path, family, load_data(stripes), split, 0)
    weight = average = 0.0
    for count, batch in enumerate(training.epoch()):
        if count == 20:
            break
        weight += options.learning_rate * training.clock.learning_rate() * gradient
        training.step(batch)
        # The first average is the weight itself; then it follows, the more slowly the longer it has.
        decay = min(0.6, (1 + count) / (10 + count))
        average = weight if count == 0 else decay * average + (1 - decay) * weight
        assert family.weight.item() == pytest.approx(weight, rel=1e-4)
        assert training.averaged.weight.item() == pytest.approx(average, rel=1e-4)


@pytest.mark.parametrize("name", ["intended_use", "license"])
def test_train_text_that_cannot_be_written_is_refused(tmp_path, stripes, name):
    with pytest.raises(InvalidConfig, match=f"{name} is .* no valid text"):
        sdk.train("vae", stripes, out=tmp_path / "run", **{name: "x\udcff"}, **SMALL)
    assert not (tmp_path / "run").exists()


class Unfinished(Family):
    """A family that lacks most of what one has."""

    modality = "image"

    Config = FamilyConfig
    tasks = ("generate",)


class Taskless(VAE):
    tasks = ()


class Optionless(VAE):
    Config = None


class FailsToBuild(VAE):
    def build(self, data):
        return 1 / 0


class LeavesAtStep(VAE):
    def training_step(self, batch, phase, step, carry):
        sys.exit("no licence")


@pytest.mark.parametrize(
    ("family", "message"),
    [
        (Unfinished, "The family 'stranger' does not implement build, .*training_step"),
        (Optionless, "The family 'stranger' does not implement Config"),
        (Taskless, r"The family 'stranger' has the tasks \(\); give a tuple of names"),
        (FailsToBuild, "The family 'stranger' failed: ZeroDivisionError: division by zero"),
        (LeavesAtStep, "The family 'stranger' failed: SystemExit: no licence"),
    ],
)
def test_family_of_a_plugin_that_fails_is_named(tmp_path, stripes, monkeypatch, family, message):
    spec = sdk.FamilySpec(name="stranger", target=f"test_training:{family.__name__}")
    registry = Registry([])
    registry.plugins = [replace(default_registry().plugins[0], specs=[("family", spec)])]
    for module in ("loop", "run"):
        monkeypatch.setattr(f"aigc_sdk.training.{module}.default_registry", lambda: registry)
    with pytest.raises(PluginError, match=message):
        sdk.train("stranger", stripes, out=tmp_path / "run", steps=2, **SMALL)
    with pytest.raises(PluginError, match=message):
        plan("stranger", stripes, config={"steps": 2, **SMALL})
    assert family is LeavesAtStep or not (tmp_path / "run").exists()


def test_train_where_another_training_is_under_way_raises(tmp_path, stripes, monkeypatch):
    out = tmp_path / "run"

    def meanwhile(*arguments):
        for resume in (False, True):
            with pytest.raises(StorageError, match=r"Another training is under way in .*run"):
                sdk.train("vae", stripes, out=out, resume=resume, steps=2, **SMALL)
        raise KeyboardInterrupt

    monkeypatch.setattr("aigc_sdk.training.loop._fit", meanwhile)
    with pytest.raises(KeyboardInterrupt):
        sdk.train("vae", stripes, out=out, steps=2, **SMALL)
    assert not out.exists()  # nothing was written yet


def test_lock_of_a_folder_that_another_training_removed_is_taken_anew(tmp_path, monkeypatch):
    folder, removed = tmp_path / "run", []

    def removing(path):
        descriptor = original(path)
        if not removed:
            removed.append(path.rmdir())
        return descriptor

    original = lock._lock
    monkeypatch.setattr(lock, "_lock", removing)
    with lock.alone_in(folder):
        assert folder.exists() and removed
        with pytest.raises(StorageError, match="Another training is under way"), lock.alone_in(folder):
            pass
        assert folder.exists()  # who comes second removes nothing
    assert not folder.exists()


@pytest.mark.skipif(lock.fcntl is None, reason="needs locks")
def test_lock_where_there_are_none_keeps_nobody_out(tmp_path, monkeypatch):
    def no_locks(*arguments):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    with lock.alone_in(tmp_path / "run"), lock.alone_in(tmp_path / "run"):
        pass


def test_train_that_cannot_write_is_no_fault_of_the_family(tmp_path, stripes, monkeypatch):
    def full(*arguments, **options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("aigc_sdk.training.loop._write_samples", full)
    with pytest.raises(StorageError, match=r"Cannot train into .*: No space left on device") as raised:
        sdk.train("vae", stripes, out=tmp_path / "run", steps=2, **SMALL)
    assert isinstance(raised.value.__cause__, OSError) and raised.value.__cause__ is not raised.value


def test_train_into_a_full_folder_or_from_nothing_reads_no_data(tmp_path, monkeypatch):
    monkeypatch.setattr("aigc_image.data.load_data", pytest.fail)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(StorageError, match="not an empty folder"):
        sdk.train("vae", "big", out=tmp_path / "full")
    with pytest.raises(InvalidRequest, match=r"there is no run\.json"):
        sdk.train("vae", "big", out=tmp_path / "new", init=tmp_path / "nowhere")


class Silent(VAE):
    def validate(self, batch):
        return {}


def test_train_family_without_figures_of_validation(tmp_path, stripes, monkeypatch):
    monkeypatch.setattr("aigc_vae.family.VAE", Silent)
    monkeypatch.setattr("aigc_sdk.training.loop._export_all", lambda *_: None)
    assert sdk.train("vae", stripes, out=tmp_path / "run", steps=2, **SMALL)._scores(None) == ()
    with pytest.raises(TrainingFailed, match="early_stop_epochs and keep_best need a figure to compare"):
        sdk.train("vae", stripes, out=tmp_path / "early", epochs=1, early_stop_epochs=1, **SMALL)


def test_train_family_picked_by_its_distribution(tmp_path, stripes, monkeypatch):
    monkeypatch.setattr("aigc_sdk.training.loop._export_all", lambda *_: None)
    run = sdk.train("aigc-sdk:vae", stripes, out=tmp_path / "run", steps=2, **SMALL)
    assert run.record.family == "aigc-sdk:vae" and run.exportable("generate").eager.card.family == "vae"


@pytest.mark.parametrize("weights", ["float16", "int8"])
def test_train_with_smaller_weights_rounds_what_is_exported_alone(tmp_path, stripes, no_export, weights):
    run = sdk.train("vae", stripes, out=tmp_path / "run", steps=2, weights=weights, **SMALL)
    exported, trained = run.exportable("generate").sampler, run.family().sampler("generate")
    pairs = list(zip(exported.parameters(), rounded(trained, weights).parameters(), strict=True))
    assert all(torch.equal(one, other) for one, other in pairs)
    assert not all(
        torch.equal(one, other) for one, other in zip(exported.parameters(), trained.parameters(), strict=True)
    )


@pytest.mark.parametrize("out", ["a\0b", "", None])
def test_train_into_no_path_raises(stripes, out):
    with pytest.raises(InvalidRequest, match=r"out is .*; give a path"):
        sdk.train("vae", stripes, out=out)
