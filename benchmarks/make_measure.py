"""Train the classifier behind `digits-features` by its recipe, and put its two measures into the zoo.

    python benchmarks/make_measure.py

Writes plugins/aigc_zoo/models/digits-features.onnx (64 features) and digits-features.classify.onnx (10 logits) with
their cards, enters them in the index, and prints what was verified. `benchmarks/digits_features.py` prints how good
they are. The judge of generated digits (`judge.py`) has another network, another loss and another seed.
"""

import hashlib
import inspect
import json
import logging
import math
import tomllib
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn

from aigc_image.data import load_data
from aigc_onnx.measure import export_measure
from aigc_sdk.card import DataSummary, ModelCard, OutputSpec
from aigc_sdk.files import cache_folder, make_folder, write_bytes
from aigc_sdk.specs import sdk_version
from aigc_sdk.training.sampling import premultiplied
from datasets import fetch

ZOO = Path(__file__).parents[1] / "plugins" / "aigc_zoo"
NAME = "digits-features"
SHAPE = (28, 28, 1)

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Training:
    """How the classifier is trained; the values are the recipe's."""

    features: int
    epochs: int
    batch_size: int
    peak_lr: float
    weight_decay: float
    reconstruction_weight: float  # of the mean squared error of a pixel from 0 to 1, beside the cross entropy
    max_shift_px: float
    max_rotation_deg: float
    max_scaling: float
    max_shear: float


class Residual(nn.Module):
    """x + convolution(x), rectified."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape (n, channels, height, width)."""
        return torch.relu(x + self.inner(x))


class Classifier(nn.Module):
    """A small residual network: features, and what is read off them linearly.

    The features are normalised by the batch before they are rectified, so that all have one scale.

    Args:
        features: how many.
        shape: (height, width, channels) of the images, 25 to 32 pixels a side.
        classes: how many.
    """

    def __init__(self, features: int, shape: tuple[int, ...] = SHAPE, classes: int = 10) -> None:
        super().__init__()

        def convolution(channels_in: int, channels_out: int, stride: int) -> list[nn.Module]:
            layer = nn.Conv2d(channels_in, channels_out, 3, stride=stride, padding=1, bias=False)
            return [layer, nn.BatchNorm2d(channels_out), nn.ReLU()]

        self.extract = nn.Sequential(
            *convolution(shape[2], 16, 1),
            *convolution(16, 24, 2),  # 14 x 14
            Residual(24),
            *convolution(24, 40, 2),  # 7 x 7
            *convolution(40, 24, 2),  # 4 x 4
            nn.Flatten(),
            nn.Linear(24 * 4 * 4, features, bias=False),
            nn.BatchNorm1d(features),
            nn.ReLU(),
        )
        self.classify = nn.Linear(features, classes)
        self.reconstruct = nn.Linear(features, math.prod(shape))


class Measure(nn.Module):
    """A part of the network as a measure: content uint8 (n, height, width, channels) -> value float32 (n, K)."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, content: Tensor) -> Tensor:
        """Measure."""
        value: Tensor = self.layers(premultiplied((content.to(torch.float32) / 255).permute(0, 3, 1, 2)))
        return value


def main() -> None:
    """Train, export both measures, enter them, print."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    recipe = tomllib.loads((ZOO / "recipes" / "measures" / f"{NAME}.toml").read_text())
    config = recipe["config"]
    training = Training(**{field.name: config[field.name] for field in fields(Training)})
    data = load_data(fetch(recipe["dataset"]))
    assert data.labels is not None
    network = _trained(training, data.images, data.labels, recipe["seed"])
    examples = np.concatenate([golden_blocks(4), data.images[:128]])

    card = ModelCard(
        kind="measure",
        **{name: config[name] for name in ("name", "version", "license", "intended_use")},
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sdk_version=sdk_version(),
        family="classifier",
        task="features",
        modality="image",
        controls=(),
        input=OutputSpec(dtype="uint8", shape=SHAPE),
        output=OutputSpec(dtype="float32", shape=(training.features,)),
        config=config,
        data=DataSummary(name=recipe["dataset"], fingerprint=data.fingerprint, n=data.n, split={"train": data.n}),
        graph_sha256="0" * 64,
    )
    logits = replace(card, task="classify", output=OutputSpec(dtype="float32", shape=(10,)))
    files = {
        "features": _export(Measure(network.extract), card, f"{NAME}.onnx", examples),
        "classify": _export(Measure(network.extract, network.classify), logits, f"{NAME}.classify.onnx", examples),
    }
    entry = {"kind": "measure", "summary": recipe["summary"], "license": config["license"], "files": files}
    index_path = ZOO / "models" / "index.json"
    index = json.loads(index_path.read_text()) | {NAME: entry}
    write_bytes(index_path, (json.dumps(index, indent=1) + "\n").encode())


def train(training: Training, images: NDArray[np.uint8], labels: NDArray[np.int64], seed: int) -> Classifier:
    """Return the trained network, in evaluation mode; torch's global generator is left as it was.

    Args:
        training: how.
        images: uint8 (n, height, width, channels).
        labels: int64 (n,), from 0 on.
        seed: of the weights, the order and the distortions.
    """
    pixels, targets = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.from_numpy(labels)
    steps_per_epoch = len(images) // training.batch_size
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = Classifier(training.features, images.shape[1:], int(labels.max()) + 1)
        optimizer = torch.optim.AdamW(network.parameters(), lr=training.peak_lr, weight_decay=training.weight_decay)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, training.peak_lr, total_steps=training.epochs * steps_per_epoch, pct_start=0.2
        )
        for epoch in range(training.epochs):
            order = torch.randperm(len(images))[: steps_per_epoch * training.batch_size]
            for batch in torch.split(order, training.batch_size):
                x = distort(premultiplied(pixels[batch] / 255), training)
                features = network.extract(x)
                cross_entropy = nn.functional.cross_entropy(network.classify(features), targets[batch])
                error = (network.reconstruct(features) - x.flatten(1)).square().mean()
                optimizer.zero_grad()
                (cross_entropy + training.reconstruction_weight * error).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
                optimizer.step()
                schedule.step()
            _log.info(
                "epoch %d of %d, last batch: cross entropy %.4f, squared error %.4f",
                epoch + 1, training.epochs, cross_entropy.item(), error.item(),
            )  # fmt: skip
    return network.eval()


def distort(x: Tensor, training: Training) -> Tensor:
    """Return every image shifted, rotated, scaled and sheared on its own: x float32 (n, channels, height, width)."""

    def uniform(largest: float, *shape: int) -> Tensor:
        return (torch.rand(len(x), *shape) * 2 - 1) * largest

    angle, scale = uniform(math.radians(training.max_rotation_deg)), 1 + uniform(training.max_scaling)
    cosine, sine = torch.cos(angle) * scale, torch.sin(angle) * scale
    # A grid's coordinates go from -1 to 1 over all pixels of a side.
    shift = uniform(training.max_shift_px * 2 / x.shape[2], 2)
    rows = [cosine, uniform(training.max_shear) - sine, shift[:, 0], sine, cosine, shift[:, 1]]
    grid = nn.functional.affine_grid(torch.stack(rows, 1).view(-1, 2, 3), list(x.shape), align_corners=False)
    return nn.functional.grid_sample(x, grid, align_corners=False)


def golden_blocks(n: int) -> NDArray[np.uint8]:
    """Return n pictures of blocks of 4 x 4 pixels, uint8 (n, 28, 28, 1); no picture of MNIST goes into the file."""
    random = np.random.default_rng(2013)
    blocks = random.integers(0, 2, (n, 7, 7, 1)) * random.integers(100, 256, (n, 1, 1, 1))
    return blocks.repeat(4, 1).repeat(4, 2).astype(np.uint8)


def _trained(training: Training, images: NDArray[np.uint8], labels: NDArray[np.int64], seed: int) -> Classifier:
    """Return the trained network, from the cache when it was trained in this very way before."""
    text = f"{training} {seed}" + "".join(inspect.getsource(part) for part in (Classifier, Residual, train, distort))
    path = make_folder(cache_folder()) / f"{NAME}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.safetensors"
    if not path.exists():
        network = train(training, images, labels, seed)
        write_bytes(path, save({name: weights.contiguous() for name, weights in network.state_dict().items()}))
    network = Classifier(training.features)
    network.load_state_dict(load_file(path))
    return network.eval()


def _export(measure: Measure, card: ModelCard, file: str, examples: NDArray[np.uint8]) -> dict[str, Any]:
    path = ZOO / "models" / file
    report = export_measure(measure.eval(), card, path, examples)
    for check in report.checks:
        print(f"{file}: {check.name}: {check.measured}")
    return {"file": file, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


if __name__ == "__main__":
    main()
