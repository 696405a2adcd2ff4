"""Folders of images and tables of their paths: where each image is, and what its label is."""

import csv
import hashlib
import json
import os
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aigc_sdk.data.dataset import DataReport
from aigc_sdk.data.pixels import Entry, ImageSource
from aigc_sdk.errors import InvalidData, missing_package, printable, shown

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

# The names that the columns of a table may have, in any case of their letters; the arrays of an .npz file too.
IMAGE_COLUMNS = ("path", "file", "image", "filename", "file_name", "filepath", "image_path", "img")
LABEL_KEYS = ("label", "class", "target", "labels", "y", "targets")

_BATCH_ROWS = 64


def folder_source(folder: Path, report: DataReport) -> ImageSource:
    """List the images of a folder; the sub-folder that an image is in is its label.

    Args:
        folder: hidden files and other files in it are counted in the report.
        report: what is left out is added to it.

    Raises:
        InvalidData: there are no images, or some have a label and others have none.
    """
    found = sorted(walk(folder, report), key=lambda name: name.split(os.sep))
    names = []
    for name in found:
        if any(part.startswith(".") for part in name.split(os.sep)):
            report.skip("hidden", name)
        elif os.path.splitext(name)[1].lower() not in IMAGE_SUFFIXES:
            report.skip("no image by its name", name)
        else:
            names.append(name)
    if not names:
        there = f"has {len(found)} files such as {found[0]}, and no images" if found else "is empty"
        raise InvalidData(f"{folder} {there}; images end in {', '.join(sorted(IMAGE_SUFFIXES))}.")
    labels = [name.partition(os.sep)[0] if os.sep in name else None for name in names]
    if None in labels and len(set(labels)) > 1:
        raise InvalidData(
            f"{folder} has {labels.count(None)} images of its own and others in sub-folders; sub-folders are labels,"
            " so put every image into one, or none."
        )
    return _source_of_paths(folder.resolve().name, folder, names, list(labels))


def walk(folder: Path, report: DataReport) -> Iterator[str]:
    """Yield the files below a folder, by their paths from there; links are followed, but into no folder twice."""
    seen: set[tuple[int, int]] = set()
    folders = deque([""])  # real ones to the left, links to the right: of two ways into a folder, the real one counts
    while folders:
        name = folders.popleft()
        try:
            status = os.stat(folder / name)
            if (status.st_dev, status.st_ino) in seen:
                report.skip("folder seen already", name)
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder / name) as entries:
                for entry in entries:
                    path = os.path.join(name, entry.name)
                    if not _is_folder(entry):
                        yield path
                    elif entry.is_symlink():
                        folders.append(path)
                    else:
                        folders.appendleft(path)
        except PermissionError:
            if not name:
                raise
            report.skip("no permission", name)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _source_of_paths(name: str, folder: Path, names: list[str], labels: list[Any]) -> ImageSource:
    """Make the source of images in files, whose paths are from a folder."""
    root = os.path.abspath(folder)

    def entries() -> Iterator[Entry]:
        for i, (path, label) in enumerate(zip(names, labels, strict=True)):
            yield Entry(path or f"row {i}", os.path.join(root, path) if path else "", label)

    state = hashlib.sha256()
    for path, label in zip(names, labels, strict=True):
        state.update(json.dumps([path, label, *_state(os.path.join(root, path))]).encode())
    return ImageSource(name, entries, len(names), [root, state.hexdigest()])


def _state(path: str) -> tuple[int, int]:
    """Return size and time of a file, by which it is known again; zeros when it is not there."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # a name with a zero byte in it is no name of a file
        return 0, 0
    return status.st_size, status.st_mtime_ns


def csv_source(path: Path, report: DataReport) -> ImageSource:
    """List the images of a .csv or .tsv table, whose paths are from the folder of the table.

    Raises:
        InvalidData: it is no table, or no column has a name that says what it is.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            reader = csv.DictReader(file, delimiter=max(",;\t", key=header.count))
            image, label = _columns(path, list(reader.fieldnames or ()), report)
            rows = [(row[image] or "", row[label] if label else None) for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidData(f"{path} is no table in UTF-8: {error}.") from error
    return _source_of_paths(path.stem, path.parent, [name for name, _ in rows], [label or None for _, label in rows])


def parquet_source(path: Path, report: DataReport) -> ImageSource:
    """List the images of a .parquet table: paths from its folder, or the bytes of files, as Hugging Face keeps them.

    Raises:
        MissingPackage: pyarrow is not installed.
        InvalidData: it is broken, or no column has a name that says what it is.
    """
    try:
        import pyarrow
        from pyarrow import parquet
    except ModuleNotFoundError as error:
        raise missing_package("Reading .parquet", "pyarrow", "data") from error

    @contextmanager
    def opened() -> Iterator[Any]:
        try:
            with parquet.ParquetFile(path) as file:
                yield file
        except (pyarrow.ArrowException, OSError) as error:
            if getattr(error, "errno", None):  # Arrow's own have none
                raise
            raise InvalidData(f"{path} is broken: {str(error).rstrip('.')}.") from error

    with opened() as file:
        schema, n = file.schema_arrow, file.metadata.num_rows
        image, label = _columns(path, schema.names, report)
        files = _state_of_files(file, image, path.parent)

    def entries() -> Iterator[Entry]:
        with opened() as file:
            number = 0
            for batch in file.iter_batches(_BATCH_ROWS, columns=[column for column in (image, label) if column]):
                for row in batch.to_pylist():
                    name, item = _cell(row[image], path, number)
                    value = row[label] if label else None
                    if not isinstance(value, str | int | None):
                        raise InvalidData(f"{path}: the label {value!r} is no text and no whole number.")
                    yield Entry(name, item, value)
                    number += 1

    key = [os.path.abspath(path), *_state(str(path)), files]
    return ImageSource(path.stem, entries, n, key, _class_names(schema, label))


def _state_of_files(table: Any, column: str, folder: Path) -> str | None:
    """Return what changes with the files that a column names; None when it holds the bytes of images alone."""
    leaves = map(table.schema.column, range(len(table.schema)))
    names = [leaf.path for leaf in leaves if leaf.logical_type.type == "STRING"]
    names = [name for name in names if name in (column, f"{column}.path")]
    if not names:
        return None
    state = hashlib.sha256()
    for batch in table.iter_batches(columns=names):  # the bytes beside the paths may be all of the data set
        for row in batch.to_pylist():
            cell = row[column]
            name = cell["path"] if isinstance(cell, dict) else cell
            if name is not None:
                state.update(json.dumps([name, *_state(str(folder / name))]).encode())
    return state.hexdigest()


def _cell(value: Any, path: Path, row: int) -> tuple[str, Any]:
    """Return the name and the item of an image in a table: a path, bytes, or both."""
    data, name = (value.get("bytes"), value.get("path")) if isinstance(value, dict) else (value, None)
    if isinstance(data, str) or data is None:
        data, name = None, data or name
    if (data is not None and not isinstance(data, bytes)) or not isinstance(name, str | None):
        raise InvalidData(f"{path}: row {row} has {shown(value)} for an image; give a path or the bytes of a file.")
    if data is not None:
        return name or f"row {row}", data
    return name or f"row {row}", str(path.parent / (name or ""))


def _class_names(schema: Any, label: str | None) -> tuple[str, ...] | None:
    """Return the names of the classes that Hugging Face keeps in the schema, if they are there."""
    try:
        names = json.loads(schema.metadata[b"huggingface"])["info"]["features"][label]["names"]
        return tuple(map(str, names))
    except (KeyError, TypeError, ValueError):
        return None


def _columns(path: Path, columns: list[str], report: DataReport) -> tuple[str, str | None]:
    """Return the names of the columns of images and labels; the report tells when there are no labels among others."""
    known = {column.strip().lower(): column for column in columns}
    image = next((known[name] for name in IMAGE_COLUMNS if name in known), None)
    if image is None:
        raise InvalidData(
            f"{path} has the columns {', '.join(columns) or 'none'}; name the one with the images"
            f" {', '.join(IMAGE_COLUMNS)}, and the one with the labels {', '.join(LABEL_KEYS)}."
        )
    label = next((known[name] for name in LABEL_KEYS if name in known), None)
    others = [column for column in columns if column != image]
    if label is None and others:
        report.notes.append(
            f"no labels: of the columns {', '.join(map(printable, others))} none is called {', '.join(LABEL_KEYS)}"
        )
    return image, label
