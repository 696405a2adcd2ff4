"""What is chosen where options were left out: for the data, and for how many steps a training holds."""

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from aigc_gan.config import GANConfig
from aigc_gan.family import GAN
from aigc_image.data import load_data
from aigc_music.data import MusicDataset, load_music
from aigc_rnn.config import MusicRNNConfig, RNNConfig
from aigc_rnn.family import RNN
from aigc_rnn.music import MusicRNN
from aigc_sdk.testing.families import example_data
from aigc_sdk.training import budget, progress
from aigc_sdk.training.budget import settle
from aigc_sdk.training.plan import _duration
from aigc_sdk.training.progress import now, readable_time
from aigc_text.data import load_texts


@pytest.fixture(scope="module")
def stream():
    """A text of 300,000 characters."""
    letters = np.random.default_rng(0).integers(97, 105, 300_000)
    return load_texts(["".join(map(chr, letters.tolist()))])


def settled(data, **options):
    family, config = (MusicRNN, MusicRNNConfig) if isinstance(data, MusicDataset) else (RNN, RNNConfig)
    split = data.split(0.05, 0.05)
    return settle(family, config(width=8, layers=1, **options), data, split, seed=0, started=now()).options


@pytest.mark.parametrize(
    ("options", "batch_size", "span", "steps"),
    [
        ({"steps": 100}, 16, 64, 100),
        ({"steps": 6000}, 32, 64, 6000),
        ({"steps": 50_000}, 64, 128, 50_000),
        ({"epochs": 2}, 16, 64, None),
        ({"epochs": 200}, 32, 128, None),
        ({}, 16, 64, 5260),
        ({"steps": 100, "batch_size": 24}, 24, 64, 100),
        ({"steps": 100, "span": 256}, 16, 256, 100),
        ({"steps": 50_000, "batch_size": 24}, 24, 128, 50_000),
    ],
)
def test_settle_takes_the_largest_step_of_which_the_budget_holds_enough(stream, options, batch_size, span, steps):
    found = settled(stream, **options)
    assert (found.batch_size, found.span, found.steps) == (batch_size, span, steps)
    assert found.epochs == options.get("epochs")


@pytest.mark.parametrize(("step_s", "batch_size", "span"), [(1.0, 16, 64), (0.05, 32, 64), (0.001, 64, 128)])
def test_settle_goes_by_the_speed_that_is_measured(stream, monkeypatch, step_s, batch_size, span):
    monkeypatch.setattr(budget, "seconds_of_step", lambda *_: step_s)
    found = settled(stream, minutes=5)
    assert (found.batch_size, found.span, found.steps, found.minutes) == (batch_size, span, None, 5)


def test_settle_measures_the_speed_and_leaves_the_random_numbers(stream, monkeypatch):
    before = torch.get_rng_state()
    held = settle(RNN, RNNConfig(width=8, layers=1, minutes=1), stream, stream.split(0.05, 0.05), seed=0, started=now())
    assert 0 < held.step_s < 60 and held.steps >= 1
    assert torch.equal(torch.get_rng_state(), before)


def test_settle_of_few_pieces_makes_no_more_passes_than_teach_something(caplog):
    data = load_music(example_data("music")[0], 1)
    found = settled(data)
    assert found.batch_size == 16 and 300 <= found.steps <= 3000
    settled(data, steps=20)
    assert "ends too early: about 20 steps are few, at least 300" in caplog.text


def test_teller_tells_within_ten_seconds_and_then_every_ten(monkeypatch, caplog):
    at = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: at[0]))
    clock, meter = progress.Clock(RNNConfig(steps=100), steps_per_epoch=50), progress.Meter()
    teller = progress.Teller(clock, meter, progress.Spent(0.0), "characters", 1000)
    told = []
    with caplog.at_level("INFO", "aigc_sdk"):
        for _ in range(20):
            at[0] += 2
            clock.count_step()
            meter.add({"loss": torch.tensor(1.5)})
            teller.tell()
            if len(caplog.messages) > len(told):
                told.append(at[0])
    assert told[0] <= 10 and all(10 <= b - a <= 12 for a, b in itertools.pairwise(told))
    assert caplog.messages[0] == "step 3 of 100 (3 %), epoch 1, loss 1.5, 500 characters/s, about 3 min 14 s left"


def test_clock_ends_early_enough_for_what_comes_after(monkeypatch):
    at = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: at[0]))
    clock = progress.Clock(RNNConfig(minutes=2), steps_per_epoch=50)
    clock.ending_s, at[0] = 30.0, 89.0
    assert clock.progress < 1
    at[0] = 90.0
    assert clock.progress == 1
    assert readable_time(59.6) == "1 min 0 s"


def test_clock_counts_what_went_by_before_the_first_step_as_time_but_not_as_progress(monkeypatch, caplog):
    at = [0.0]
    monkeypatch.setattr(progress, "time", SimpleNamespace(monotonic=lambda: at[0]))
    clock, meter = progress.Clock(RNNConfig(minutes=10, warmup_steps=9), steps_per_epoch=50), progress.Meter()
    clock.ending_s, at[0] = 60.0, 240.0  # reading took 4 of the 10 minutes, and the end will take one
    clock.begin(0.0)
    assert (clock.progress, clock.minutes, clock.trained_minutes) == (0, 4, 0)
    assert clock.learning_rate() == 0.1
    teller = progress.Teller(clock, meter, progress.Spent(0.0), "texts", 16)
    clock.step, at[0] = 100, 300.0
    with caplog.at_level("INFO", "aigc_sdk"):
        teller.tell()
    assert caplog.messages == ["step 100 of about 500 (20 %), epoch 1, 27 texts/s, about 4 min 0 s left"]
    resumed = progress.Clock(RNNConfig(minutes=10), steps_per_epoch=50)
    resumed.restore(clock.state())
    assert resumed.progress == pytest.approx(0.2) and resumed.trained_minutes == pytest.approx(1)
    at[0] += 240
    assert clock.progress == 1 and resumed.progress == pytest.approx(1)


def test_gan_takes_its_usual_steps_only_without_a_limit(monkeypatch):
    data = load_data(example_data("image")[0])
    monkeypatch.setattr(budget, "seconds_of_step", lambda *_: 0.01)

    def steps(**options):
        config = GANConfig(width=4, latent=4, **options)
        return settle(GAN, config, data, data.split(0.05, 0.05), seed=0, started=now())

    assert steps().options.steps == 6000
    assert steps(epochs=7000).options.steps is None and steps(epochs=7000).steps >= 7000
    assert steps(minutes=600).options.steps is None and steps(minutes=600).steps > 3_000_000


def test_plan_counts_the_reading_within_a_limit_in_minutes():
    # An epoch of 10 steps of 1 s has a validation of 5 s; 18 s of the minute are spent on reading.
    assert _duration(RNNConfig(minutes=1), 10, 1.0, 5.0, 18.0) == (28, pytest.approx(0.7))
    assert _duration(RNNConfig(steps=40), 10, 1.0, 5.0, 18.0) == (40, pytest.approx(1))
    assert _duration(RNNConfig(minutes=0.1), 10, 1.0, 5.0, 18.0)[0] == 1
