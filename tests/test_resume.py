"""Training that survives: kills at any moment, signals, losses that explode, other weights, and what a run refuses."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import aigc_sdk as sdk
from aigc_gan.family import GAN
from aigc_image.data import load_data
from aigc_image.training import ImageFamilyConfig
from aigc_rnn.family import RNN
from aigc_rnn.music import MusicRNN
from aigc_sdk.errors import (
    Interrupted,
    InvalidConfig,
    InvalidModel,
    InvalidRequest,
    StorageError,
    TrainingFailed,
    UnknownName,
)
from aigc_sdk.testing.families import example_data
from aigc_sdk.training import Family, Losses, Run, loop
from aigc_sdk.training.checkpoint import load_checkpoint, save_checkpoint
from aigc_sdk.training.eager import weights_sha256
from aigc_sdk.training.trainer import prepare
from aigc_vae.family import VAE

# All that has a state: random numbers in the training, in the validation and in the order, averages and the best ones.
OPTIONS = {
    "latent": 4,
    "width": 8,
    "blocks": 0,
    "batch_size": 32,
    "steps": 20,
    "log_steps": 3,
    "binarize": True,
    "augment": ["flip", "shift"],
    "balance_classes": True,
    "early_stop_epochs": 50,
    "validation_fraction": 0.2,
}


class Killed(KeyboardInterrupt):
    """Ends a training without a chance to save anything."""


def fit(data, out, **changes):
    return sdk.train("vae", data, out=out, seed=5, **(OPTIONS | changes))


def final_weights(folder):
    """Return the averaged and the trained weights, and what the optimizers keep of each, as bytes."""
    tensors = load_file(folder / "checkpoint.safetensors")
    kinds = ("ema.", "trained.", "optimizers.")
    return {name: t.numpy().tobytes() for name, t in tensors.items() if name.startswith(kinds)}


def lines(folder):
    """Return the lines of the metrics without what depends on the clock."""
    return [
        {key: value for key, value in line.items() if key not in ("minutes", "items_per_s")}
        for line in Run.open(folder).metrics
    ]


def assert_same(folder, whole):
    assert final_weights(folder) == final_weights(whole)
    assert lines(folder) == lines(whole)
    assert load_checkpoint(folder)["finished"]
    assert not list(folder.rglob("*.tmp"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory, stripes):
    """The folder of a training that nothing interrupted, without its export."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "_export_all", lambda run, family: None)
        return fit(stripes, tmp_path_factory.mktemp("whole") / "run").folder


def kill_at(patch, owner, name, call, *, before=True):
    """Let the call of that number end the training, before or after it has done its work."""
    original, calls = getattr(owner, name), []

    def wrapped(*arguments, **options):
        calls.append(None)
        if len(calls) == call and before:
            raise Killed
        result = original(*arguments, **options)
        if len(calls) == call:
            raise Killed
        return result

    patch.setattr(owner, name, wrapped)


@pytest.mark.parametrize(
    ("owner", "name", "call", "before"),
    [
        (loop, "write_bytes", 1, True),  # nothing is there yet
        (loop, "write_bytes", 1, False),  # run.json is there, no checkpoint
        (loop, "save_checkpoint", 1, False),  # the one of step 0
        (VAE, "training_step", 2, True),
        (loop, "save_checkpoint", 5, True),
        (loop, "save_checkpoint", 5, False),  # the metrics that follow are missing
        (loop.Journal, "losses", 3, False),  # the checkpoint that follows is missing
        (loop.Journal, "validation", 1, False),
        (VAE, "validate", 2, False),
        (VAE, "training_step", 20, False),
        (loop, "save_checkpoint", 20, False),
        (loop, "_write_samples", 1, False),  # finished
    ],
)
def test_resume_after_a_kill_at_any_moment_ends_in_the_same_weights(
    tmp_path, stripes, whole, no_export, owner, name, call, before
):
    out = tmp_path / "run"
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, owner, name, call, before=before)
        with pytest.raises(Killed):
            fit(stripes, out, resume=True, checkpoint_minutes=1e-9)
    fit(stripes, out, resume=True, checkpoint_minutes=1e-9)
    assert_same(out, whole)


GAN_OPTIONS = {
    "network": "resnet",  # whose spectral normalisation has a state
    "latent": 4,
    "width": 4,
    "steps": 12,
    "validation_steps": 3,  # within the pass, which has 6 steps
    "discriminator_steps": 2,
    "validation_fraction": 0.2,
}


def assert_killed_run_ends_in_the_same_weights(tmp_path, family, call, fit):
    """Kill a training at a step, go on, and compare with one that nobody disturbed; `fit` is `train` but for `out`."""
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, family, "training_step", call)
        with pytest.raises(Killed):
            fit(out=tmp_path / "run", checkpoint_minutes=1e-9)
    fit(out=tmp_path / "run", checkpoint_minutes=1e-9, resume=True)
    assert_same(tmp_path / "run", fit(out=tmp_path / "whole").folder)


@pytest.mark.parametrize("call", [3, 15, 23, 36])  # the generator's, and once the second of the discriminator's
def test_gan_killed_between_two_phases_ends_in_the_same_weights(tmp_path, stripes, no_export, call):
    fit = partial(sdk.train, "gan", stripes, seed=5, **GAN_OPTIONS)
    assert_killed_run_ends_in_the_same_weights(tmp_path, GAN, call, fit)
    assert [line["step"] for line in lines(tmp_path / "run") if "validation" in line] == [3, 6, 9, 12]


@pytest.mark.parametrize("is_stream", [True, False], ids=["stream", "documents"])
@pytest.mark.parametrize("call", [4, 9])
def test_rnn_killed_in_the_middle_of_a_pass_ends_in_the_same_weights(tmp_path, no_export, is_stream, call):
    random = np.random.default_rng(0)
    texts = ["".join(random.choice(list("abcd"), size)) for size in ([9000] if is_stream else [12] * 90)]
    options = {"width": 8, "layers": 1, "span": 32, "batch_size": 16, "epochs": 3, "max_length": 6, "min_count": 1}
    assert_killed_run_ends_in_the_same_weights(tmp_path, RNN, call, partial(sdk.train, "rnn", texts, seed=5, **options))


@pytest.mark.parametrize("call", [3, 6])
def test_music_rnn_killed_in_the_middle_of_a_pass_ends_in_the_same_weights(tmp_path, no_export, call):
    pieces, _ = example_data("music")
    options = {"width": 8, "layers": 1, "batch_size": 16, "epochs": 4, "min_count": 1, "transpose": 2}
    options |= {"dropout": 0.2, "token_dropout": 0.3}  # both draw
    fit = partial(sdk.train, "music-rnn", pieces, seed=5, **options)
    assert_killed_run_ends_in_the_same_weights(tmp_path, MusicRNN, call, fit)


def test_gan_exports_the_weights_of_the_least_distance(tmp_path, stripes, no_export, monkeypatch):
    distances = {3: 5.0, 6: 2.0, 9: 3.0, 12: 2.5}
    kept = {}

    def assess(family, step, means):
        kept[step] = {name: tensor.clone() for name, tensor in family.state_dict().items()}
        return {"frechet": distances[step]}

    monkeypatch.setattr(GAN, "assess", assess)
    exported = sdk.train("gan", stripes, out=tmp_path / "run", seed=5, **GAN_OPTIONS).family().state_dict()
    assert all(torch.equal(tensor, exported[name]) for name, tensor in kept[6].items())
    assert not all(torch.equal(tensor, exported[name]) for name, tensor in kept[12].items())


def test_resume_from_old_checkpoints_cuts_the_metrics_back(tmp_path, stripes, whole, no_export):
    out = tmp_path / "run"
    for call in (8, 14):
        with pytest.MonkeyPatch.context() as patch:
            kill_at(patch, VAE, "training_step", call)
            with pytest.raises(Killed):
                fit(stripes, out, resume=True)
    assert len(lines(out)) > 2 and load_checkpoint(out)["clock"]["step"] == 0
    fit(stripes, out, resume=True)
    assert_same(out, whole)


@pytest.mark.slow
def test_resume_after_real_kills_ends_in_the_same_weights(tmp_path, stripes, no_export):
    images, labels = stripes
    np.savez(tmp_path / "stripes.npz", images=images, labels=labels)
    options = OPTIONS | {"steps": 300, "checkpoint_minutes": 0.002}
    program = (
        "import sys, torch, json, aigc_sdk as sdk\n"
        "torch.set_num_threads(int(sys.argv[1]))\n"
        "from aigc_sdk.training import loop\n"
        "loop._export_all = lambda *_: None\n"
        "sdk.train('vae', 'stripes.npz', out='run', seed=5, resume=True, **json.loads(sys.argv[2]))\n"
    )
    command = [sys.executable, "-c", program, str(torch.get_num_threads()), json.dumps(options)]
    metrics = tmp_path / "run" / "metrics.jsonl"
    wait = random.Random(3)
    for lines_before in (5, 40):
        with subprocess.Popen(command, cwd=tmp_path) as process:
            while process.poll() is None and (not metrics.exists() or metrics.read_bytes().count(b"\n") < lines_before):
                time.sleep(0.01)
            time.sleep(wait.uniform(0, 0.1))
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert not load_checkpoint(tmp_path / "run")["finished"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=300)
    assert_same(tmp_path / "run", fit(stripes, tmp_path / "whole", **options).folder)


def test_resume_goes_on_with_what_the_run_chose_and_was_given(tmp_path, no_export, monkeypatch):
    text = tmp_path / "text.txt"
    text.write_text("abcd efgh " * 900)
    given = {"width": 8, "layers": 1, "minutes": 100, "checkpoint_minutes": 1e-9, "max_length": 6}
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, loop, "save_checkpoint", 4)
        with pytest.raises(Killed):
            sdk.train("rnn", text, out=tmp_path / "run", **given)
    before = Run.open(tmp_path / "run").record.config
    assert before["span"] and before["batch_size"] and before["steps"] is None
    monkeypatch.setattr(loop, "settle", None)  # nothing is chosen anew
    state = load_checkpoint(tmp_path / "run")
    state["clock"] |= {"minutes": 99.999, "ending_s": 0.0}
    save_checkpoint(tmp_path / "run", state)
    run = sdk.train("rnn", text, out=tmp_path / "run", resume=True, span=None)
    assert run.record.config == before and load_checkpoint(run.folder)["finished"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_saves_a_checkpoint_raises_and_goes_on_exactly(tmp_path, stripes, whole, no_export, monkeypatch, number):
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    phases = VAE.phases

    def stop(family, step):
        if step == 10:
            os.kill(os.getpid(), number)
        return phases(family, step)

    with monkeypatch.context() as patch:
        patch.setattr(VAE, "phases", stop)
        with pytest.raises(Interrupted, match=rf"{number.name} at step 11.*resume=True") as caught:
            fit(stripes, tmp_path / "run")
    assert caught.value.signal == number and isinstance(caught.value, KeyboardInterrupt)
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert load_checkpoint(tmp_path / "run")["clock"]["step"] == 11
    fit(stripes, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole)


@pytest.mark.parametrize(("step", "call"), [(6, 1), (19, 2)])
def test_signal_while_validating_goes_on_exactly(tmp_path, stripes, whole, no_export, monkeypatch, step, call):
    validate, calls = VAE.validate, []

    def stop(family, batch):
        calls.append(None)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return validate(family, batch)

    with monkeypatch.context() as patch:
        patch.setattr(VAE, "validate", stop)
        with pytest.raises(Interrupted):
            fit(stripes, tmp_path / "run")
    fit(stripes, tmp_path / "run", resume=True)
    assert_same(tmp_path / "run", whole)


def test_second_signal_stops_at_once(tmp_path, stripes, no_export, monkeypatch):
    def stop(family, step):
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGINT)
        return ("all",)

    monkeypatch.setattr(VAE, "phases", stop)
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(stripes, tmp_path / "run")
    assert not isinstance(caught.value, Interrupted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_train_outside_of_the_main_thread_sets_no_handlers(tmp_path, stripes, whole, no_export):
    failed = []

    def run():
        try:
            fit(stripes, tmp_path / "run")
        except Exception as error:  # noqa: BLE001 - for the main thread to show
            failed.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert not failed
    assert_same(tmp_path / "run", whole)


def test_loss_that_is_no_number_stops_at_once_and_keeps_the_checkpoint(tmp_path, stripes, no_export, monkeypatch):
    step_of = VAE.training_step

    def explode(family, batch, phase, step, carry):
        losses, carry = step_of(family, batch, phase, step, carry)
        return (Losses(losses.total * float("nan")) if step == 6 else losses), carry

    monkeypatch.setattr(VAE, "training_step", explode)
    with pytest.raises(TrainingFailed, match=r"not a number any more at step 7.*keeps the last good checkpoint"):
        fit(stripes, tmp_path / "run", checkpoint_minutes=1e-9)
    state = load_checkpoint(tmp_path / "run")
    assert state["clock"]["step"] == 6
    assert all(torch.isfinite(tensor).all() for tensor in [*state["trained"].values(), *state["ema"].values()])


def test_checkpoint_of_weights_that_are_no_numbers_raises_and_keeps_the_old_one(tmp_path):
    save_checkpoint(tmp_path, {"trained": {"w": torch.ones(2)}})
    with pytest.raises(TrainingFailed, match=r"trained\.w"):
        save_checkpoint(tmp_path, {"trained": {"w": torch.tensor([1.0, float("inf")])}})
    assert torch.equal(load_checkpoint(tmp_path)["trained"]["w"], torch.ones(2))


def test_checkpoint_gives_back_nested_values_and_tied_tensors(tmp_path):
    tied = torch.arange(6.0).reshape(2, 3)
    state = {
        "carry": (tied.t(), [tied, None], {"hidden": {3: torch.tensor(2, dtype=torch.int64)}, "a.b": True}),
        "carry.0": tied,  # the place of another tensor
        "numbers": [1, 0.1, float("inf"), "text", 2**80],
    }
    save_checkpoint(tmp_path, state)
    found = load_checkpoint(tmp_path)
    assert torch.equal(found["carry"][0], tied.t()) and torch.equal(found["carry.0"], tied)
    assert isinstance(found["carry"], tuple) and found["carry"][1][1] is None
    assert found["carry"][2]["hidden"][3].dtype == torch.int64 and found["carry"][2]["a.b"] is True
    assert found["numbers"] == state["numbers"]


def test_checkpoint_of_other_objects_raises(tmp_path):
    with pytest.raises(TrainingFailed, match=r"cannot keep carry\.0, which is of type set"):
        save_checkpoint(tmp_path, {"carry": [{1}]})
    assert not list(tmp_path.iterdir())


class Pair(Family):
    """Two optimizers and phases, a recurrent carry, dropout, and running statistics."""

    modality = "image"

    Config = ImageFamilyConfig
    tasks = ("generate",)

    def build(self, data):
        self.one = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.BatchNorm1d(8), nn.Dropout(0.3))
        self.two = nn.GRUCell(8, 8)

    def optimizers(self):
        return {
            "one": torch.optim.RMSprop(self.one.parameters(), lr=1e-2, momentum=0.9),
            "two": torch.optim.SGD(
                [{"params": [self.two.weight_ih], "lr": 0.1}, {"params": [self.two.weight_hh], "lr": 0.2}], momentum=0.5
            ),
        }

    def phases(self, step):
        return ("one", "two") if step % 3 else ("two",)

    def training_step(self, batch, phase, step, carry):
        hidden = carry[0]["hidden"] if carry else torch.zeros(len(batch["images"]), 8)
        state = self.two(self.one(batch["images"]), hidden)
        return Losses((state - 0.5).square().mean(), {phase: state.mean()}), ({"hidden": state.detach()}, step)


@pytest.mark.parametrize("stop", [1, 7, 8, 13])
def test_resume_family_with_two_optimizers_and_a_carry_is_exact(tmp_path, stripes, stop):
    data = load_data(stripes)
    split = {"train": np.arange(256), "validation": np.arange(0), "test": np.arange(0)}

    def begin(seed):
        torch.manual_seed(seed)
        family = Pair(ImageFamilyConfig(batch_size=32, precision="float32", warmup_steps=3, augment=("flip",)))
        family.build(None)
        return prepare(tmp_path, family, data, split, 1)

    def run(trainer, step):
        while trainer.clock.step < step:
            for batch in trainer.epoch():
                trainer.step(batch)
                if trainer.clock.step == step:
                    break
            else:
                trainer.clock.count_epoch()
        return trainer

    with torch.random.fork_rng():
        wanted = run(begin(0), 20).state()
        save_checkpoint(tmp_path, run(begin(0), stop).state())
        resumed = begin(9)
        resumed.restore(load_checkpoint(tmp_path))
        found = run(resumed, 20).state()
    times = ("clock", "meter")
    texts = [repr({k: v for k, v in state.items() if k not in times}) for state in (wanted, found)]
    assert texts[0] == texts[1]
    for part in ("trained", "ema"):
        assert all(torch.equal(wanted[part][name], found[part][name]) for name in wanted[part])
    assert wanted["meter"]["counts"] == found["meter"]["counts"]


def test_resume_before_the_first_checkpoint_begins_from_the_same_weights(tmp_path, stripes, whole, no_export):
    wanted = fit(stripes, tmp_path / "wanted", init=whole)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, loop, "save_checkpoint", 1)
        with pytest.raises(Killed):
            fit(stripes, tmp_path / "run", init=whole)
    resumed = fit(stripes, tmp_path / "run", resume=True)
    assert resumed.record.init == wanted.record.init
    assert final_weights(resumed.folder) == final_weights(wanted.folder)


def test_resume_with_options_that_change_no_weights_goes_on(stopped, stripes, whole):
    fit(stripes, stopped, resume=True, log_steps=7, workers=0, checkpoint_minutes=9)
    assert final_weights(stopped) == final_weights(whole)


def test_resume_in_a_new_or_empty_folder_begins(tmp_path, stripes, whole, no_export):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / ".0123456789abcdef.tmp").write_text("left by a killed write")
    for name in ("new", "empty"):
        assert_same(fit(stripes, tmp_path / name, resume=True).folder, whole)


def test_resume_of_a_finished_run_returns_it_untouched(tmp_path, stripes, whole, no_export):
    out = Path(shutil.copytree(whole, tmp_path / "run"))
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    run = fit(stripes, out, resume=True)
    assert run.folder == out and run.record == Run.open(whole).record
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before


def test_resume_of_a_finished_run_exports_what_is_missing(tmp_path, trained, digits_8x8):
    out = Path(shutil.copytree(trained.folder, tmp_path / "digits-8x8"))
    (out / "model.interpolate.onnx").unlink()
    (out / ".0123456789abcdef.tmp").write_text("left by a killed export")
    kept = (out / "model.onnx").read_bytes()
    config = {name: value for name, value in trained.record.config.items() if value is not None}
    run = sdk.train("vae", digits_8x8, out=out, seed=3, resume=True, **config)
    assert sorted(run.models) == ["generate", "inpaint", "interpolate", "reconstruct"]
    assert (out / "model.onnx").read_bytes() == kept
    ours, theirs = (sdk.load(each / "model.interpolate.onnx").card for each in (out, trained.folder))
    assert ours.graph_sha256 == theirs.graph_sha256
    assert not list(out.rglob("*.tmp"))


@pytest.fixture
def stopped(tmp_path, stripes, no_export):
    """The folder of a training that was killed at its tenth step."""
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, VAE, "training_step", 10)
        with pytest.raises(Killed):
            fit(stripes, tmp_path / "run", checkpoint_minutes=1e-9)
    return tmp_path / "run"


def test_resume_names_all_that_differs(stopped, stripes, tmp_path):
    images, labels = stripes
    with pytest.raises(InvalidConfig) as caught:
        sdk.train(
            "vae",
            (255 - images, labels),
            out=stopped,
            seed=6,
            resume=True,
            init=tmp_path / "other",
            **(OPTIONS | {"latent": 5, "checkpoint_minutes": 1e-9}),
        )
    message = str(caught.value)
    for words in ("seed was 5, now 6", "latent was 4, now 5", "fingerprint", "init was None, now"):
        assert words in message
    assert "beta" not in message and "checkpoint_minutes" not in message


def test_train_in_the_folder_of_a_run_says_how_to_resume(stopped, stripes):
    with pytest.raises(StorageError, match=r"resume it \(resume=True, --resume\) or choose another --out"):
        fit(stripes, stopped)


def _no_record(run):
    (run / "run.json").unlink()


def _broken_record(run):
    (run / "run.json").write_text("{")


def _newer_record(run):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"colour": "red"}))


def _newer_option(run):
    record = json.loads((run / "run.json").read_text())
    record["config"]["colour"] = "red"
    (run / "run.json").write_text(json.dumps(record | {"sdk_version": "9.9"}))


def _other_family(run):
    record = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(record | {"family": "gan"}))


def _no_checkpoint(run):
    (run / "checkpoint.safetensors").unlink()


def _half_a_checkpoint(run):
    path = run / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:2000])


def _checkpoint_of_the_first_version(run):
    path = run / "checkpoint.safetensors"
    tensors = {name: t for name, t in load_file(path).items() if name.startswith(("ema.", "trained."))}
    save_file(tensors, path, {"state": '{"step": 3}'})


def _checkpoint_of_another_run(run):
    path = run / "checkpoint.safetensors"
    state = load_checkpoint(run)
    state["trained"].popitem()
    path.unlink()
    save_checkpoint(run, state)


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (_no_record, StorageError, "no run.json: there is no training to resume"),
        (_broken_record, InvalidModel, "not strict JSON"),
        (_newer_record, InvalidModel, "is not what a training writes"),
        (_newer_option, InvalidConfig, r"version 9\.9 of the SDK with options.*colour"),
        (_other_family, InvalidConfig, "of the family gan, not vae"),
        (_no_checkpoint, TrainingFailed, r"no checkpoint\.safetensors: it was deleted"),
        (_half_a_checkpoint, TrainingFailed, "holds no training that could go on"),
        (_checkpoint_of_the_first_version, TrainingFailed, "another version of the SDK.*init="),
        (_checkpoint_of_another_run, TrainingFailed, "does not fit this run: .*Missing key"),
    ],
)
def test_resume_of_a_damaged_folder_raises_and_loses_nothing(stopped, stripes, damage, error, message):
    damage(stopped)
    before = {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()}
    with pytest.raises(error, match=re.compile(message, re.DOTALL)):
        fit(stripes, stopped, resume=True, checkpoint_minutes=1e-9)
    assert {path: path.read_bytes() for path in stopped.rglob("*") if path.is_file()} == before


def test_resume_with_other_threads_warns(stopped, stripes, caplog):
    record = json.loads((stopped / "run.json").read_text())
    record["environment"]["threads"] += 1
    (stopped / "run.json").write_text(json.dumps(record))
    fit(stripes, stopped, resume=True, checkpoint_minutes=1e-9)
    assert "threads is" in caplog.text and "last bits" in caplog.text


def test_resume_without_the_metrics_warns_and_trains(stopped, stripes, whole, caplog):
    (stopped / "metrics.jsonl").unlink()
    fit(stripes, stopped, resume=True, checkpoint_minutes=1e-9)
    assert "metrics.jsonl is gone" in caplog.text
    assert final_weights(stopped) == final_weights(whole)


def test_resume_with_metrics_cut_within_a_line_warns_and_leaves_whole_lines(stopped, stripes, whole, caplog):
    path = stopped / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-5])
    fit(stripes, stopped, resume=True, checkpoint_minutes=1e-9)
    assert "less than the" in caplog.text
    assert all(json.loads(line)["step"] for line in path.read_text().splitlines())
    assert final_weights(stopped) == final_weights(whole)


def test_resume_with_metrics_that_cannot_be_read_raises(stopped, stripes):
    (stopped / "metrics.jsonl").unlink()
    (stopped / "metrics.jsonl").mkdir()
    with pytest.raises(StorageError, match=r"Cannot read .*metrics\.jsonl: Is a directory"):
        fit(stripes, stopped, resume=True, checkpoint_minutes=1e-9)
    with pytest.raises(StorageError, match=r"Cannot read .*metrics\.jsonl"):
        _ = Run.open(stopped).metrics


@pytest.mark.parametrize("tail", [b'{"step": 1', b"garbage\n", b"\xff\n", b"[1]\n", b'{"step": 1, "validation": 3}\n'])
def test_metrics_what_is_no_line_of_them_is_left_out(stopped, tail):
    complete = Run.open(stopped).metrics
    with open(stopped / "metrics.jsonl", "ab") as file:
        file.write(tail)
    assert Run.open(stopped).metrics == complete


def test_resume_counts_the_minutes_before(tmp_path, stripes, no_export):
    options = {"steps": None, "epochs": None, "minutes": 100, "checkpoint_minutes": 1e-9}
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, loop, "save_checkpoint", 4)
        with pytest.raises(Killed):
            fit(stripes, tmp_path / "run", **options)
    state = load_checkpoint(tmp_path / "run")
    assert 0 < state["clock"]["minutes"] < 10
    state["clock"] |= {"minutes": 99.995, "ending_s": 0.0}
    save_checkpoint(tmp_path / "run", state)
    run = fit(stripes, tmp_path / "run", resume=True, **options)
    assert 100 <= run.metrics[-1]["minutes"] < 110


def test_minutes_that_end_in_a_validation_leave_a_last_line_of_losses(tmp_path, stripes, no_export, monkeypatch):
    validate = loop.Trainer.validate

    def take_long(trainer):
        trainer.clock.spent_minutes += 100
        return validate(trainer)

    monkeypatch.setattr(loop.Trainer, "validate", take_long)
    run = fit(stripes, tmp_path / "run", steps=None, epochs=None, minutes=100, log_steps=1000)
    assert [("loss" in line, "validation" in line) for line in run.metrics] == [(False, True), (True, False)]
    assert run.metrics[0]["step"] == run.metrics[1]["step"] == 6 and run.metrics[1]["epoch"] == 1


def test_early_stop_exports_the_best_weights(tmp_path, stripes, no_export, monkeypatch):
    figures = {1: 5.0, 2: 3.0, 3: float("nan"), 4: 3.0, 5: 0.0}
    seen = {}

    def validate(trainer):
        seen[trainer.clock.epoch] = weights_sha256(trainer.averaged)
        return {"figure": figures[trainer.clock.epoch], "other": -trainer.clock.epoch}

    monkeypatch.setattr(loop.Trainer, "validate", validate)
    run = fit(stripes, tmp_path / "run", steps=None, epochs=9, early_stop_epochs=2, log_steps=5)
    assert list(seen) == [1, 2, 3, 4]
    assert weights_sha256(run.family()) == seen[2] != seen[4]
    [score, _] = run.exportable("generate").eager.card.scores
    steps = [line["step"] for line in run.metrics if "validation" in line]
    assert (score["value"], score["step"]) == (3.0, steps[1])
    assert run.metrics[-1]["step"] == steps[-1] and "loss" in run.metrics[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"early_stop_epochs": 2, "validation_fraction": 0}, "early_stop_epochs needs data to validate on"),
        ({"balance_classes": True}, "balance_classes needs labels"),
        ({"augment": "flip,turn"}, "augment.* 'flip' or 'shift'"),
    ],
)
def test_option_that_the_data_cannot_serve_raises_and_writes_nothing(tmp_path, stripes, options, message):
    changes = {"early_stop_epochs": None, "balance_classes": False} | options
    with pytest.raises(InvalidConfig, match=message):
        fit(stripes[0], tmp_path / "run", **changes)
    assert not list(tmp_path.iterdir())


def test_init_starts_from_the_averaged_weights_of_a_run(tmp_path, stripes, whole, no_export):
    for i, init in enumerate((whole, str(whole), Run.open(whole), whole / "model.onnx")):
        run = fit(stripes, tmp_path / str(i), init=init, steps=1, learning_rate=1e-30)
        wanted = dict(Run.open(whole).family().named_parameters())  # the moments of the latents follow the step
        assert all(torch.equal(value, wanted[name]) for name, value in run.family().named_parameters())
    report = run.record.init
    assert report["copied"] == len(run.family().state_dict())
    assert report["missing"] == report["unexpected"] == report["of_other_shape"] == []


def test_init_names_what_does_not_fit(tmp_path, stripes, whole, no_export, caplog):
    run = fit(stripes, tmp_path / "run", init=whole, latent=6, blocks=1, steps=1)
    report = run.record.init
    assert report["of_other_shape"] and all(name in caplog.text for name in report["of_other_shape"])
    assert report["missing"] and set(report["missing"]) <= set(run.family().state_dict())
    back = fit(stripes, tmp_path / "back", init=run, steps=1)
    assert set(back.record.init["unexpected"]) == set(report["missing"])


def test_init_resumed_goes_on_without_the_other_run(tmp_path, stripes, whole, no_export):
    other = Path(shutil.copytree(whole, tmp_path / "other"))
    wanted = fit(stripes, tmp_path / "wanted", init=other)
    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, VAE, "training_step", 10)
        with pytest.raises(Killed):
            fit(stripes, tmp_path / "run", init=other)
    shutil.rmtree(other)
    run = fit(stripes, tmp_path / "run", init=other, resume=True)
    assert_same(run.folder, wanted.folder)
    assert run.record.init == wanted.record.init


def test_init_that_cannot_be_used_raises_and_writes_nothing(tmp_path, stripes, whole, tiny_path):
    before = set(tmp_path.iterdir())
    for init, message in (
        (tiny_path, "Nothing of init"),
        (tmp_path / "gone.onnx", "no run.json"),
        ("digits-vea", "Did you mean 'digits-vae'"),
        (3, "of type int"),
        ("x" * 300, "no run.json"),
    ):
        with pytest.raises(InvalidRequest, match=message):
            fit(stripes, tmp_path / "run", init=init)
    assert set(tmp_path.iterdir()) == before


def test_init_of_which_nothing_fits_raises(tmp_path, stripes, whole):
    other = Path(shutil.copytree(whole, tmp_path / "other"))
    save_file({"ema.generator.weight": torch.ones(3)}, other / "checkpoint.safetensors")
    with pytest.raises(InvalidRequest, match=r"of 1 tensors of the family vae, 0 have a name"):
        fit(stripes, tmp_path / "run", init=other)
    assert not (tmp_path / "run").exists()


def test_tensorboard_events_hold_the_metrics_once(tmp_path, stripes, no_export):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with pytest.MonkeyPatch.context() as patch:
        kill_at(patch, VAE, "training_step", 11)
        with pytest.raises(Killed):
            fit(stripes, tmp_path / "run", tensorboard=True)
    run = fit(stripes, tmp_path / "run", tensorboard=True, resume=True)
    events = EventAccumulator(str(run.folder / "tensorboard"))
    events.Reload()
    found = [(event.step, pytest.approx(event.value, rel=1e-6)) for event in events.Scalars("loss")]
    assert found == [(line["step"], line["loss"]) for line in run.metrics if "loss" in line]
    assert len(events.Scalars("validation/negative_elbo")) == len([x for x in run.metrics if "validation" in x])


def test_tensorboard_that_is_not_installed_raises_first(tmp_path, stripes, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    monkeypatch.delitem(sys.modules, "torch.utils.tensorboard", raising=False)
    with pytest.raises(sdk.errors.MissingPackage, match=r"'tensorboard'.*aigc-sdk\[train\]"):
        fit(stripes, tmp_path / "run", tensorboard=True)
    assert not list(tmp_path.iterdir())


def test_plan_tells_what_the_training_takes_and_writes_nothing(tmp_path, stripes, whole, monkeypatch):
    from aigc_sdk.training import plan

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    wanted = torch.rand(2)
    torch.manual_seed(1)
    found = plan("vae", stripes, seed=5, init=whole, config=OPTIONS)
    assert torch.equal(torch.rand(2), wanted)
    assert not list(tmp_path.iterdir())
    record = Run.open(whole).record
    assert found.config == record.config and found.data["fingerprint"] == record.data.fingerprint
    assert found.data["split"] == record.data.split and found.steps == 20
    assert sum(found.data["labels"].values()) == record.data.split["train"]
    assert found.init["missing"] == []
    size = (whole / "checkpoint.safetensors").stat().st_size / 1e6
    assert size < found.disk_mb["checkpoint"] < 1.6 * size  # it holds the best weights too, while it lasts
    assert 0 < found.minutes < 1 and found.step_ms > 0


def test_plan_estimates_nearly_what_it_takes(tmp_path, stripes, no_export):
    from aigc_sdk.training import plan

    options = OPTIONS | {"steps": 300, "width": 32}
    estimated = plan("vae", stripes, seed=5, config=options).minutes
    run = sdk.train("vae", stripes, out=tmp_path / "run", seed=5, **options)
    assert estimated / 6 < run.metrics[-1]["minutes"] < estimated * 6  # the machine may be busy in between


def test_plan_of_what_cannot_be_trained_raises(stripes):
    from aigc_sdk.training import plan

    with pytest.raises(UnknownName, match="latent"):
        plan("vae", stripes, config={"latnt": 3})
