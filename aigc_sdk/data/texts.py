"""Texts: read from files, tables and lists, in documents or as one stream, and what a family is told of them."""

import csv
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.data.cleaning import named_labels
from aigc_sdk.data.dataset import DataReport, DataSpec, Sequences, frequencies_of, split_by_digest
from aigc_sdk.data.folders import LABEL_KEYS, walk
from aigc_sdk.errors import AigcError, InvalidData, printable, shown
from aigc_sdk.files import as_path, storage_error

Documents = Literal["file", "paragraph", "line"]

TEXT_KEYS = ("text", "content", "body", "document")

# A text with a longer document is one stream, which has no ends.
MOST_CHARACTERS = 5000
# A stream is split between pieces of so many characters.
PIECE_CHARACTERS = 4096
# What can be read at most: as code points it takes four times as many bytes.
MOST_BYTES = 2**29


@dataclass(frozen=True)
class TextDataset(Sequences):
    """Texts with or without labels; the codes are code points.

    Attributes:
        labels: int64 (n,), indices into label_names, or None.
        label_names: the names of the classes.
        is_stream: whether they are pieces of one text, in order, instead of documents with beginnings and ends.
        report: what reading them found.
    """

    labels: NDArray[np.int64] | None
    label_names: tuple[str, ...]
    is_stream: bool = False
    report: DataReport = field(default_factory=DataReport)

    @cached_property
    def digests(self) -> NDArray[np.uint64]:
        """64 bits that tell texts apart, uint64 (n,): by them documents are split."""
        digests = (hashlib.blake2b(self.row_codes(row).tobytes(), digest_size=8).digest() for row in range(self.n))
        return np.array([int.from_bytes(digest, "big") for digest in digests], np.uint64)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of the label names, the code points, where each text begins, and the labels."""
        digest = hashlib.sha256(json.dumps(["text", self.is_stream, self.label_names]).encode())
        digest.update(self.codes.astype("<i4").data)
        digest.update(self.starts.astype("<i8").data)
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").data)
        return digest.hexdigest()

    def split(self, validation: float, test: float) -> dict[str, NDArray[np.int64]]:
        """Split into train, validation and test, and return the indices of each.

        Documents are split by what they hold, as images are; of a stream the end is held out.

        Raises:
            InvalidData: nothing is left to train on.
        """
        if not self.is_stream:
            return split_by_digest(self.name, self.digests, validation, test, "texts")
        first_test = self.n - round(self.n * test)
        first_held_out = first_test - round(self.n * validation)
        rows = np.arange(self.n)
        parts = np.split(rows, [max(0, first_held_out), first_test])
        if not len(parts[0]):
            raise InvalidData(f"{self.name} is too short for parts to validate and to test on; use smaller fractions.")
        return dict(zip(("train", "validation", "test"), parts, strict=True))

    def spec(self, train: NDArray[np.int64]) -> DataSpec:
        """Describe the data to a family; `train` are the indices of the training part."""
        # Of a stream, whose pieces lie one after the other, no copy is made.
        pieces = [self.codes[self.starts[train[0]] : self.starts[train[-1] + 1]]]
        if not self.is_stream:
            pieces = [self.row_codes(row) for row in train.tolist()]
        counts = np.bincount(np.concatenate(pieces) if len(pieces) > 1 else pieces[0])
        characters = {chr(code): int(counts[code]) for code in np.flatnonzero(counts).tolist()}
        longest = int(np.diff(self.starts)[train].max())
        frequencies = frequencies_of(self.labels, self.label_names, train)
        return DataSpec((longest,), self.label_names, frequencies, len(train), characters, self.is_stream)


def load_texts(source: Any, documents: Documents = "file") -> TextDataset:
    """Read texts; what was left out and why is in the report.

    Args:
        source: a `.txt` file, a folder of them (sub-folders are labels), a `.jsonl`, `.csv` or `.tsv` file with a
            column of texts and maybe one of labels, a list of texts, or a pair of texts and labels.
        documents: what is one document of a `.txt` file.

    Raises:
        InvalidData: it is nothing of this kind, or broken, or holds too little; says what to do.
        InvalidRequest: an empty path.
        StorageError: it cannot be opened.

    Example:
        >>> data = load_texts(["spring", "summer", "autumn"])
        >>> data.n, data.is_stream, "".join(map(chr, data.row_codes(0)))
        (3, False, 'spring')
    """
    if isinstance(source, TextDataset):
        return source
    report = DataReport(what="text")
    if isinstance(source, str | os.PathLike):
        path = as_path(source, "data")
        try:
            name, texts, labels = _read_path(path, documents, report)
        except AigcError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
            raise storage_error("read", path, error) from error
    elif isinstance(source, tuple) and len(source) == 2 and not isinstance(source[0], str):
        name, texts, labels = "texts", _texts(source[0]), [str(label) for label in source[1]]
        if len(labels) != len(texts):
            raise InvalidData(f"There are {len(texts)} texts and {len(labels)} labels; give one for each.")
    elif isinstance(source, Sequence):
        name, texts, labels = "texts", _texts(source), None
    else:
        raise InvalidData(f"data is of type {type(source).__name__}; give a path, texts, or a pair (texts, labels).")
    return _dataset(name, texts, labels, report)


def _texts(values: Any) -> list[str]:
    texts = list(values)
    if wrong := next((text for text in texts if not isinstance(text, str)), None):
        raise InvalidData(f"One of the texts is {shown(wrong)}, no text.")
    return texts


def _dataset(name: str, texts: list[str], labels: list[str] | None, report: DataReport) -> TextDataset:
    """Make a dataset of the texts that can be used: of copies the first, and none that is empty."""
    kept, first = [], dict[tuple[str, str | None], int]()
    for i, text in enumerate(texts):
        if not text:
            report.skip("empty", f"text {i}")
        elif labels is not None and not labels[i]:
            report.skip("no label", f"text {i}")
        elif (other := first.setdefault((text, labels[i] if labels else None), i)) != i:
            report.skip("copy", f"text {i}", f"of text {other}")
        else:
            kept.append(i)
    codes = [_codes(texts[i], name) for i in kept]
    report.n = len(codes)
    distinct = len(set[str]().union(*(texts[i] for i in kept)))
    if distinct < 2:
        found = "is empty" if not codes else "consists of one character again and again"
        raise InvalidData(f"{name} {found}; give texts of at least two different characters. {report.line}.")
    sizes = [len(each) for each in codes]
    report.notes.append(f"{sum(sizes):,} characters, {distinct:,} different ones, the longest text has {max(sizes):,}")
    whole = codes[0] if len(codes) == 1 else np.concatenate(codes)
    if max(sizes) > MOST_CHARACTERS:
        if labels is not None:
            raise InvalidData(
                f"{name} has labels and a text of {max(sizes):,} characters; labels need texts of at most"
                f" {MOST_CHARACTERS:,}. Divide them, for example by documents=paragraph."
            )
        report.notes.append("read as one stream, without beginnings and ends")
        starts = np.append(np.arange(0, len(whole), PIECE_CHARACTERS), len(whole))
        report.n = len(starts) - 1
        return TextDataset(name, whole, starts, None, (), is_stream=True, report=report)
    if len(kept) < 2:
        raise InvalidData(f"{name} has only one text; give at least two different ones. {report.line}.")
    chosen = None if labels is None else np.array([labels[i] for i in kept])
    indices, names = named_labels(name, len(kept), chosen, None)
    return TextDataset(name, whole, np.append(0, np.cumsum(sizes)), indices, names, report=report)


def _codes(text: str, name: str) -> NDArray[np.int32]:
    try:
        return np.frombuffer(text.encode("utf-32-le"), np.int32)
    except UnicodeEncodeError as error:
        raise InvalidData(f"{name} has half a surrogate pair, {text[error.start]!a}, which is no character.") from error


def _read_path(path: Path, documents: Documents, report: DataReport) -> tuple[str, list[str], list[str] | None]:
    name, suffix = path.name.partition(".")[0] or path.name, path.suffix.lower()
    if not path.exists():
        raise InvalidData(f"There is no data at {path}.")
    if path.is_dir():
        return _read_folder(path, documents, report)
    if not path.is_file():
        raise InvalidData(f"{path} is no file and no folder.")
    if suffix == ".txt":
        return name, _divided(read_text(path), documents), None
    if suffix == ".jsonl":
        texts, labels = _columns(path, _json_rows(path), report)
    elif suffix in (".csv", ".tsv"):
        texts, labels = _columns(path, _csv_rows(path, suffix), report)
    else:
        raise InvalidData(
            f"{path} is of no kind that texts are read from; give .txt, .jsonl, .csv or .tsv, or a folder."
        )
    return name, texts, labels


def _read_folder(folder: Path, documents: Documents, report: DataReport) -> tuple[str, list[str], list[str] | None]:
    texts, labels = list[str](), list[str]()
    for found in sorted(walk(folder, report), key=lambda each: Path(each).parts):
        if any(part.startswith(".") for part in Path(found).parts):
            report.skip("hidden", found)
        elif not found.lower().endswith(".txt"):
            report.skip("no text by its name", found)
        else:
            parts = _divided(read_text(folder / found), documents)
            texts += parts
            labels += [found.partition(os.sep)[0] if os.sep in found else ""] * len(parts)
    if not texts:
        raise InvalidData(f"{folder} has no texts; their files end in .txt. {report.line}.")
    if "" in labels and len(set(labels)) > 1:
        raise InvalidData(
            f"{folder} has texts of its own and others in sub-folders; sub-folders are labels, so put every text into"
            " one, or none."
        )
    return folder.resolve().name, texts, labels if labels[0] else None


def read_text(path: Path, otherwise: str | None = None) -> str:
    """Return a file's text, its lines ended by a line feed alone; what is not UTF-8 may be of another encoding."""
    if path.stat().st_size > MOST_BYTES:
        raise InvalidData(f"{path} has {path.stat().st_size:,} bytes; a file of texts has at most {MOST_BYTES:,}.")
    data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if otherwise:
            return _lines(data.decode(otherwise))
        raise InvalidData(
            f"{path} is no text in UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}. Convert the file."
        ) from error
    return _lines(text)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _divided(text: str, documents: Documents) -> list[str]:
    if documents == "file":
        return [text]
    parts = text.split("\n" if documents == "line" else "\n\n")
    return [part.strip() for part in parts if part.strip()]


def _json_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InvalidData(f"{path}, line {number}, is no JSON: {error}.") from error
        if not isinstance(row, dict):
            raise InvalidData(f"{path}, line {number}, is {shown(row)}; give an object with a text in each line.")
        yield number, {str(key).lower(): value for key, value in row.items()}


def _csv_rows(path: Path, suffix: str) -> Iterator[tuple[int, dict[str, Any]]]:
    limit = csv.field_size_limit(sys.maxsize)
    try:
        lines = read_text(path).splitlines(keepends=True)
        reader = csv.DictReader(lines, delimiter="\t" if suffix == ".tsv" else ",")
        for row in reader:
            yield reader.line_num, {str(key).lower(): value for key, value in row.items()}
    except csv.Error as error:
        raise InvalidData(f"{path} is no table: {error}.") from error
    finally:
        csv.field_size_limit(limit)


def _columns(
    path: Path, rows: Iterator[tuple[int, dict[str, Any]]], report: DataReport
) -> tuple[list[str], list[str] | None]:
    texts, labels = list[str](), list[str]()
    for number, row in rows:
        column = next((key for key in TEXT_KEYS if key in row), None)
        if column is None:
            raise InvalidData(
                f"{path}, line {number}, has {printable(', '.join(row))[:200] or 'nothing'}; give a column named"
                f" {' or '.join(TEXT_KEYS)}, and for labels one named {' or '.join(LABEL_KEYS[:2])}."
            )
        if not isinstance(row[column], str):
            report.skip("no text", f"line {number}", shown(row[column]))
            continue
        label = next((row[key] for key in LABEL_KEYS if key in row), None)
        texts.append(row[column].replace("\r\n", "\n"))
        labels.append("" if label is None else str(label))
    return texts, labels if any(labels) else None
