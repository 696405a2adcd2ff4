"""Features of the small images that the GAN family is measured on: of a classifier trained on the very data.

As digits-features is one for digits: it names the class, and its features have to give the picture back, so that they
see both what an image shows and how. ImageNet's networks were never shown icons of 32 pixels; blown up to 224, a little
noise moves their features farther than another picture does.
"""

import hashlib
import inspect
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import make_measure
from aigc_onnx.measure import export_measure
from aigc_sdk.card import DataSummary, ModelCard, OutputSpec
from aigc_sdk.files import cache_folder, make_folder
from aigc_sdk.specs import sdk_version
from make_measure import Measure, Training

TRAINING = Training(
    features=64,
    epochs=30,
    batch_size=128,
    peak_lr=4e-3,
    weight_decay=0.02,
    reconstruction_weight=10.0,
    max_shift_px=2.0,
    max_rotation_deg=12.0,
    max_scaling=0.12,
    max_shear=0.15,
)


def measure_for(name: str, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> Path:
    """Return a measure of 64 features, trained on these images and from then on in the cache.

    Args:
        name: of the data.
        images: uint8 (n, height, width, channels).
        labels: int64 (n,).
    """
    digest = hashlib.sha256(f"{TRAINING}{inspect.getsource(make_measure)}".encode())
    digest.update(images.tobytes())
    path = make_folder(cache_folder() / "measures") / f"{name}-{digest.hexdigest()[:12]}.onnx"
    if path.exists():
        return path
    network = make_measure.train(TRAINING, images, labels, seed=7)
    card = ModelCard(
        kind="measure",
        name=f"{name}-features",
        version="1.0.0",
        license="unspecified",
        intended_use="benchmarks",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sdk_version=sdk_version(),
        family="classifier",
        task="features",
        modality="image",
        controls=(),
        input=OutputSpec(dtype="uint8", shape=images.shape[1:]),
        output=OutputSpec(dtype="float32", shape=(TRAINING.features,)),
        config={},
        data=DataSummary(name=name, fingerprint=digest.hexdigest(), n=len(images), split={"train": len(images)}),
        graph_sha256="0" * 64,
    )
    with torch.no_grad():
        report = export_measure(Measure(network.extract).eval(), card, path, images[:128])
    return report.path
