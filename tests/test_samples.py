"""Samples of families whose first task needs an image: super-resolution and captioning."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import aigc_sdk as sdk
from aigc_image.data import load_data
from aigc_rnn.family import RNN
from aigc_sdk.card import Control, OutputSpec
from aigc_sdk.errors import InvalidRequest
from aigc_sdk.registry import Registry, default_registry
from aigc_sdk.training import Family, FamilyConfig, Losses
from aigc_sdk.training.samples import NoSamples, feed_samples
from tiny_model import PIXEL_CONTROLS, make_card, make_graph

SMALL_IMAGE = Control(name="image", kind="image", shape=(4, 4, 1), default=None, help="what to make sharper")


class Sampler(nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, seed, controls):
        image = controls["image"].permute(0, 3, 1, 2).float() / 255
        noise = (seed % 3).float().reshape(-1, 1, 1, 1) / 255  # no two seeds make one image
        pixels = (self.network(image) + noise).clamp(0, 1) * 255
        return pixels.round().to(torch.uint8).permute(0, 2, 3, 1)


class Sharpen(Family):
    """Images of 8 x 8 from their halves in size."""

    modality = "image"

    Config = FamilyConfig
    tasks = ("sharpen",)

    def build(self, data):
        self.network = nn.ConvTranspose2d(1, 1, 2, 2)

    def optimizers(self):
        return {"all": torch.optim.SGD(self.parameters(), lr=0.1)}

    def phases(self, step):
        return ("all",)

    def training_step(self, batch, phase, step, carry):
        images = batch["images"]
        return Losses(F.mse_loss(self.network(F.avg_pool2d(images, 2)), images)), carry

    def validate(self, batch):
        return {"error": self.training_step(batch, "all", 0, None)[0].total.item()}

    def controls(self, task):
        return [SMALL_IMAGE]

    def output(self, task):
        return OutputSpec(dtype="uint8", shape=(8, 8, 1))

    def sampler(self, task):
        return Sampler(self.network)


class Caption(RNN):
    """Texts about an image, which data of texts does not have."""

    def controls(self, task):
        return [*super().controls(task), *([SMALL_IMAGE] if task == "generate" else [])]


@pytest.fixture
def stranger(monkeypatch):
    """Register families of this file by name."""
    specs = [
        ("family", sdk.FamilySpec(name="sharpen", target="test_samples:Sharpen")),
        ("family", sdk.FamilySpec(name="caption", target="test_samples:Caption", modalities=("text",))),
    ]
    known = default_registry()
    registry = Registry([])
    registry.plugins = [*known.plugins, replace(known.plugins[0], name="strangers", distribution="x", specs=specs)]
    for module in ("training.loop", "training.run", "training.plan", "recipe"):
        monkeypatch.setattr(f"aigc_sdk.{module}.default_registry", lambda: registry, raising=False)


def test_train_first_task_that_needs_an_image_is_sampled_from_the_validation_data(tmp_path, stripes, stranger):
    run = sdk.train("sharpen", stripes, out=tmp_path / "run", steps=20, batch_size=32, warmup_steps=0)
    (sheet,) = (run.folder / "samples").glob("*.png")
    import PIL.Image

    with PIL.Image.open(sheet) as image:
        made = np.asarray(image)
    assert made.shape[0] >= 64 and made.std() > 20  # 64 items, which are no one level
    exported = sdk.load(run.folder)
    images = load_data(stripes).pixels(np.arange(3))[:, ::2, ::2]
    assert exported.generate(image=list(images), seed=1).to_numpy().shape == (3, 8, 8, 1)
    with pytest.raises(InvalidRequest, match="image"):
        exported.generate(3)


def test_train_first_task_that_the_data_cannot_feed_says_why_there_are_no_samples(
    tmp_path, names, stranger, no_export, caplog
):
    with caplog.at_level(logging.WARNING, "aigc_sdk"):
        run = sdk.train("caption", names, out=tmp_path / "run", steps=2, batch_size=32, width=8, layers=1)
    assert not list((run.folder / "samples").iterdir())
    assert "no samples at step 2: the image image has no default, and the data has nothing to feed it" in caplog.text


def test_feed_samples_are_the_validation_images_in_the_size_of_the_control(stripes):
    data = load_data(stripes)
    card = make_card(make_graph(), controls=(SMALL_IMAGE,), golden=None)
    rows = np.array([7, 3, 5])
    fed = feed_samples(card, data, rows, 4, "image")["image"]
    assert len(fed) == 4 and all(image.dtype == np.uint8 and image.shape == (4, 4, 1) for image in fed)
    mean = data.pixels(rows).astype(float).reshape(3, 4, 2, 4, 2, 1).mean((2, 4))
    for image, wanted in zip(fed, [*mean, mean[0]], strict=True):
        assert np.abs(image - wanted).max() <= 1


@pytest.mark.parametrize(
    ("control", "rows", "message"),
    [
        (replace(PIXEL_CONTROLS[1], default=None), [1], "the mask mask has no default, and the data has nothing"),
        (replace(SMALL_IMAGE, shape=(4, 4, 3)), [1], "image takes 3 channels, and the data has 1"),
        (SMALL_IMAGE, [], "there are no items to validate on"),
    ],
)
def test_feed_samples_that_the_data_does_not_have_says_why(stripes, control, rows, message):
    card = make_card(make_graph(), controls=(control,), golden=None)
    with pytest.raises(NoSamples, match=message):
        feed_samples(card, load_data(stripes), np.array(rows, np.int64), 4, "image")


def test_feed_samples_of_controls_with_defaults_is_nothing(stripes):
    assert feed_samples(make_card(make_graph()), load_data(stripes), np.arange(0), 4, "image") == {}
