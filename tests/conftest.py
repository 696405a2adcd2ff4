"""What the tests share: a cache of their own, a hand-made model, and one small trained run."""

import functools
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

import aigc_sdk as sdk
from aigc_sdk.testing.families import example_data
from tiny_model import write_tiny_model

if TYPE_CHECKING:
    from aigc_sdk.training import Run


@pytest.fixture(scope="session", autouse=True)
def interruptible() -> None:
    """Take SIGINT as a terminal sends it: a shell starts what it puts into the background with it ignored."""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def exports_unwatched() -> None:
    """Hide from coverage the millions of calls inside of torch's exporter, which it would watch to no purpose."""

    def unwatched(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def run(*args: Any, **kwargs: Any) -> Any:
            watcher = sys.gettrace()
            sys.settrace(None)
            try:
                return function(*args, **kwargs)
            finally:
                sys.settrace(watcher)

        return run

    torch.export.export = unwatched(torch.export.export)
    torch.onnx.export = unwatched(torch.onnx.export)


@pytest.fixture(scope="session")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The verdict on the hand-made model: hundreds of tests load it, and each would try it in a process of its own."""
    folder = tmp_path_factory.mktemp("tried")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIGC_SDK_CACHE", str(folder))
        sdk.load(write_tiny_model(folder / "tiny.onnx")).close()
    return folder / "verdicts"


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory, verdicts: Path) -> Path:
    """Keep the verdicts on the tests' models out of the user's cache, and one test's from another's."""
    cache = tmp_path_factory.mktemp("cache")
    shutil.copytree(verdicts, cache / "verdicts")
    monkeypatch.setenv("AIGC_SDK_CACHE", str(cache))
    return cache


@pytest.fixture
def tiny_path(tmp_path: Path) -> Path:
    """A hand-made model file."""
    return write_tiny_model(tmp_path / "tiny.onnx")


@pytest.fixture
def tiny(tiny_path: Path) -> sdk.Model:
    """The hand-made model, loaded."""
    return sdk.load(tiny_path)


@pytest.fixture(scope="session")
def digits_8x8() -> tuple[Any, Any]:
    """scikit-learn's digits: uint8 (1797, 8, 8, 1) and labels (1797,)."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return np.rint(digits.images * 255 / 16).astype(np.uint8)[..., None], digits.target


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, digits_8x8: tuple[Any, Any]) -> "Run":
    """A small VAE, trained for some seconds on scikit-learn's digits and exported; shared, so leave it as it is."""
    out = tmp_path_factory.mktemp("runs") / "digits-8x8"
    options = {
        "epochs": 12,
        "batch_size": 32,
        "prior_steps": 2,
        "learning_rate": 3e-3,
        "beta": 1.0,
        "beta_warmup_steps": 100,
        "warmup_steps": 20,
    }
    return sdk.train("vae", digits_8x8, out=out, seed=3, latent=8, width=16, name="digits-8x8", **options)


@pytest.fixture(scope="session")
def trained_gan(tmp_path_factory: pytest.TempPathFactory, digits_8x8: tuple[Any, Any]) -> "Run":
    """A small GAN that mixes styles, trained for some seconds and exported; shared, so leave it as it is."""
    out = tmp_path_factory.mktemp("runs") / "gan-8x8"
    options = {"steps": 150, "batch_size": 32, "warmup_steps": 20, "latent": 16, "width": 8}
    return sdk.train("gan", digits_8x8, out=out, seed=3, network="style", name="gan-8x8", **options)


@pytest.fixture(scope="session")
def names() -> tuple[list[str], list[str]]:
    """Names of four syllables, and the first of each as its label."""
    syllables = np.random.default_rng(0).choice(["ka", "lo", "mi", "ra", "ten", "vu"], (900, 4))
    names = ["".join(name) for name in syllables]
    return names, [name[:2] for name in names]


@pytest.fixture(scope="session")
def trained_rnn(tmp_path_factory: pytest.TempPathFactory, names: tuple[list[str], list[str]]) -> "Run":
    """A small network for such names; shared, so leave it as it is."""
    out = tmp_path_factory.mktemp("runs") / "names"
    options = {"epochs": 30, "batch_size": 32, "width": 32, "layers": 1, "attention": 4, "dropout": 0.0}
    options |= {"warmup_steps": 5, "learning_rate": 1e-2}
    return sdk.train("rnn", names, out=out, **options)


@pytest.fixture(scope="session")
def trained_music(tmp_path_factory: pytest.TempPathFactory) -> "Run":
    """A small network for chords of two; shared, so leave it as it is."""
    items, _ = example_data("music")
    out = tmp_path_factory.mktemp("runs") / "chords"
    options = {"steps": 40, "width": 16, "transpose": 1, "batch_size": 8}
    return sdk.train("music-rnn", items, out=out, **options)


@pytest.fixture(scope="session")
def stripes() -> tuple[Any, Any]:
    """Images of stripes, uint8 (300, 8, 8), and their direction as label (300,)."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 300)
    rows, columns = np.indices((8, 8))
    phases = rng.integers(0, 4, 300)
    images = np.stack(
        [(((rows if up else columns) + phase) // 2 % 2 * 200) for up, phase in zip(labels, phases, strict=True)]
    )
    return (images + rng.integers(0, 50, images.shape)).astype(np.uint8), labels


@pytest.fixture
def no_export(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave out the export, which takes longer than a tiny training; its own tests are elsewhere."""
    from aigc_sdk.training import loop

    monkeypatch.setattr(loop, "_export_all", lambda run, family: None)
