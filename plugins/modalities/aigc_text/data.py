"""Texts: read from files, tables and lists, in documents or as one stream, and what a family is told of them."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from aigc_sdk.card import checked
from aigc_sdk.codes import decode
from aigc_sdk.data.dataset import DataReport, DataSpec, Sequences, frequencies_of, split_by_digest
from aigc_sdk.data.encodings import read_text
from aigc_sdk.data.folders import empty_folders, walk
from aigc_sdk.data.labels import check_names, label_notes, named_labels
from aigc_sdk.data.tables import (
    LABEL_KEYS,
    Table,
    checked_keys,
    checked_labels,
    column_of,
    note_no_labels,
    read_csv,
    read_jsonl,
)
from aigc_sdk.errors import AigcError, InvalidData, printable, shown
from aigc_sdk.files import as_path, storage_error
from aigc_sdk.modality import ModalityData
from aigc_sdk.names import composed

Documents = Literal["file", "paragraph", "line"]

TEXT_KEYS = ("text", "content", "body", "document")

# A text with a longer document is one stream, which has no ends.
MOST_CHARACTERS = 5000
# A stream is split between pieces of so many characters.
PIECE_CHARACTERS = 4096


@dataclass(frozen=True)
class TextDetails:
    """What a family needs to know of texts besides.

    Attributes:
        characters: how often each character occurs in the training part.
        is_stream: whether they are pieces of one text, in order, without beginnings and ends.
    """

    characters: Mapping[str, int]
    is_stream: bool = False


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

    def items(self, rows: NDArray[np.int64]) -> tuple[str, ...]:
        """Return the texts of these rows; of a stream its pieces."""
        return tuple(decode(self.row_codes(row)) for row in rows.tolist())

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
        return DataSpec((longest,), self.label_names, frequencies, len(train), TextDetails(characters, self.is_stream))


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
            found = _read_path(path, documents, report)
        except AigcError:
            raise
        except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
            raise storage_error("read", path, error) from error
    elif isinstance(source, tuple) and len(source) == 2 and not isinstance(source[0], str):
        found = _labelled(_texts(source[0], "data[0]"), source[1], report)
    elif (isinstance(source, Sequence) and not isinstance(source, bytes | bytearray)) or isinstance(source, np.ndarray):
        texts = _texts(source, "data")
        found = _Found("texts", texts, None, _places(len(texts)))
    else:
        raise InvalidData(f"data is of type {type(source).__name__}; give a path, texts, or a pair (texts, labels).")
    data = _dataset(found, report)
    check_names(data.name, *data.label_names)
    return data


class _Found(NamedTuple):
    """Texts as they were found: all of them, with labels or None where one has none, and what each is called."""

    name: str
    texts: list[str]
    labels: list[str | None] | None
    places: list[str]


def _places(n: int) -> list[str]:
    return [f"text {i}" for i in range(n)]


def _listed(values: Any, where: str, what: str) -> list[Any]:
    is_one = isinstance(values, str | bytes | bytearray | Mapping | Set) or getattr(values, "ndim", 1) == 0
    if is_one or not isinstance(values, Iterable):
        raise InvalidData(f"{where} is of type {type(values).__name__}; give a list of {what}.")
    return list(values)


def _texts(values: Any, where: str) -> list[str]:
    """Return texts that were given in Python, each of which has to be one; raises InvalidData."""
    texts = _listed(values, where, "texts")
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise InvalidData(f"{where}[{i}] is {shown(text)}, of type {type(text).__name__}; a text is a str.")
    return texts


def _labelled(texts: list[str], labels: Any, report: DataReport) -> _Found:
    values, places = _listed(labels, "data[1]", "labels, one for each text"), _places(len(texts))
    if len(values) != len(texts):
        raise InvalidData(f"There are {len(texts)} texts and {len(values)} labels; give one for each.")
    return _Found("texts", texts, _names(checked_labels(values, "data", places, report)), places)


def _names(labels: list[str | int | None]) -> list[str | None]:
    return [label if label is None else str(label) for label in labels]


def _kept(found: _Found, report: DataReport) -> list[int]:
    """Return which texts can be used, and report the others: of copies the first is kept, and none that is empty."""
    _, texts, labels, places = found
    kept, first = list[int](), dict[tuple[str, str | None], int]()
    for i, text in enumerate(texts):
        if not text:
            report.skip("empty", places[i])
        elif labels is not None and labels[i] is None:
            report.skip("no label", places[i])
        elif (other := first.setdefault((text, labels[i] if labels else None), i)) != i:
            report.skip("copy", places[i], f"of {places[other]}")
        else:
            kept.append(i)
    return kept


def _dataset(found: _Found, report: DataReport) -> TextDataset:
    """Make a dataset of the texts that can be used."""
    name, texts, labels, _ = found
    kept = _kept(found, report)
    codes = [_codes(texts[i], name) for i in kept]
    report.n = len(codes)
    distinct = len(set[str]().union(*(texts[i] for i in kept)))
    if distinct < 2:
        wrong = "is empty" if not codes else "consists of one character again and again"
        raise InvalidData(f"{name} {wrong}; give texts of at least two different characters. {report.line}.")
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
    report.notes += label_notes("text", names, labels or ())
    return TextDataset(name, whole, np.append(0, np.cumsum(sizes)), indices, names, report=report)


def _codes(text: str, name: str) -> NDArray[np.int32]:
    try:
        return np.frombuffer(text.encode("utf-32-le"), np.int32)
    except UnicodeEncodeError as error:
        raise InvalidData(f"{name} has half a surrogate pair, {text[error.start]!a}, which is no character.") from error


def _read_path(path: Path, documents: Documents, report: DataReport) -> _Found:
    name, suffix = path.name.partition(".")[0] or path.name, path.suffix.lower()
    if not path.exists():
        raise InvalidData(f"There is no data at {path}.")
    if path.is_dir():
        return _read_folder(path, documents, report)
    if not path.is_file():
        raise InvalidData(f"{path} is no file and no folder.")
    if suffix == ".txt":
        texts = _divided(read_text(path), documents)
        return _Found(name, texts, None, _places(len(texts)))
    if suffix == ".jsonl":
        table = read_jsonl(path)
    elif suffix in (".csv", ".tsv"):
        table = read_csv(path, (*TEXT_KEYS, *LABEL_KEYS), report)
        if table.titles and table.column(TEXT_KEYS) is None:
            raise InvalidData(_no_texts(str(path), table.titles))
    else:
        raise InvalidData(
            f"{path} is of no kind that texts are read from; give .txt, .jsonl, .csv or .tsv, or a folder."
        )
    return _of_table(path, name, table, report)


def _of_table(path: Path, name: str, table: Table, report: DataReport) -> _Found:
    """Return the texts of a table; rows that have none are left out."""
    texts, labels, places = list[str](), list[Any](), list[str]()
    for line, cells in table.rows:
        column, label = column_of(cells, TEXT_KEYS), column_of(cells, LABEL_KEYS)
        if column is None:
            raise InvalidData(_no_texts(f"{path}, line {line},", list(cells)))
        if not isinstance(cells[column], str):
            report.skip("no text", f"line {line}", shown(cells[column]))
            continue
        texts.append(cells[column].replace("\r\n", "\n").replace("\r", "\n"))
        labels.append(cells[label] if label else None)
        places.append(f"line {line}")
    if table.column(LABEL_KEYS) is None:
        keys, column = checked_keys(path, table.titles), table.column(TEXT_KEYS)
        note_no_labels([title for key, title in zip(keys, table.titles, strict=True) if key != column], report)
    checked = _names(checked_labels(labels, path, places, report))
    return _Found(name, texts, checked if any(checked) else None, places)


def _no_texts(where: str, titles: Sequence[str]) -> str:
    return (
        f"{where} has {printable(', '.join(titles))[:200] or 'nothing'}; give a column named {' or '.join(TEXT_KEYS)},"
        f" and for labels one named {' or '.join(LABEL_KEYS[:2])}."
    )


def _read_folder(folder: Path, documents: Documents, report: DataReport) -> _Found:
    texts, labels, places = list[str](), list[str | None](), list[str]()
    for name in sorted(walk(folder, report), key=lambda each: Path(each).parts):
        if any(part.startswith(".") for part in Path(name).parts):
            report.skip("hidden", name)
        elif not name.lower().endswith(".txt"):
            report.skip("no text by its name", name)
        else:
            parts = _divided(read_text(folder / name), documents)
            texts += parts
            labels += [composed(name.partition(os.sep)[0]) if os.sep in name else None] * len(parts)
            places += [name] if documents == "file" else [f"{name}, {place}" for place in _places(len(parts))]
    if not texts:
        raise InvalidData(f"{folder} has no texts; their files end in .txt. {report.line}.")
    report.notes += empty_folders("text", folder, labels, report)
    if None in labels and len(set(labels)) > 1:
        raise InvalidData(
            f"{folder} has texts of its own and others in sub-folders; sub-folders are labels, so put every text into"
            " one, or none."
        )
    return _Found(folder.resolve().name, texts, labels if labels[0] is not None else None, places)


def _divided(text: str, documents: Documents) -> list[str]:
    if documents == "file":
        return [text]
    parts = text.split("\n" if documents == "line" else "\n\n")
    return [part.strip() for part in parts if part.strip()]


class TextData(ModalityData):
    """Texts: files, lines, rows of a table, or one long stream."""

    def read(self, source: Any, config: Mapping[str, Any] | None, *, trains: bool = False) -> TextDataset:
        """Read texts; `documents` of the options says what one is."""
        return load_texts(source, (config or {}).get("documents", "file"))

    def dump(self, details: TextDetails) -> dict[str, Any]:
        """Return the characters, and whether they are of a stream."""
        return {"characters": dict(details.characters), "is_stream": details.is_stream, "music": None}

    def load(self, values: Mapping[str, Any]) -> TextDetails:
        """Return what `dump` was given; version 0.1 wrote the field of music too."""
        if values.get("music") is not None:
            raise ValueError("these are not the details of texts")
        return checked(TextDetails, {name: value for name, value in values.items() if name != "music"})
