"""Folders of images and tables of their paths: where each image is, and what its label is."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aigc_image.decoding import Entry, ImageSource
from aigc_sdk.data.dataset import DataReport
from aigc_sdk.data.folders import empty_folders, walk
from aigc_sdk.data.tables import LABEL_KEYS, checked_keys, checked_labels, column_of, note_no_labels, read_csv
from aigc_sdk.errors import InvalidData, missing_package, printable, shown
from aigc_sdk.names import composed

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

# The names that a column of images may have, in any case of their letters.
IMAGE_COLUMNS = ("path", "file", "image", "filename", "file_name", "filepath", "image_path", "img")


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
    labels = [composed(name.partition(os.sep)[0]) if os.sep in name else None for name in names]
    report.notes += empty_folders("image", folder, labels, report)
    if None in labels and len(set(labels)) > 1:
        raise InvalidData(
            f"{folder} has {labels.count(None)} images of its own and others in sub-folders; sub-folders are labels,"
            " so put every image into one, or none."
        )
    return _source_of_paths(folder.resolve().name, folder, names, labels, names)


def _source_of_paths(
    name: str, folder: Path, names: list[str], labels: Sequence[str | int | None], places: list[str]
) -> ImageSource:
    """Make the source of images in files, whose paths are from a folder; one without a path is called by its place."""
    root = os.path.abspath(folder)

    def entries() -> Iterator[Entry]:
        for path, label, place in zip(names, labels, places, strict=True):
            yield Entry(path or place, os.path.join(root, path) if path else "", label)

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
    """List the images of a .csv or .tsv table of their paths, which are from the folder of the table.

    Raises:
        InvalidData: it is no table, or no column has a name that says what it is.
    """
    table = read_csv(path, (*IMAGE_COLUMNS, *LABEL_KEYS), report)
    image, label = _columns(path, table.titles, report)
    names = [row.cells[image] or "" for row in table.rows]
    places = [f"line {row.line}" for row in table.rows]
    labels = checked_labels([row.cells[label] if label else None for row in table.rows], path, places, report)
    return _source_of_paths(path.stem, path.parent, names, labels, places)


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
        image_key, label_key = _columns(path, schema.names, report)
        title_of = dict(zip(checked_keys(path, schema.names), schema.names, strict=True))
        image, label = title_of[image_key], title_of[label_key] if label_key else None
        files = _state_of_files(file, image, path.parent)
        values = file.read([label]).column(0).to_pylist() if label else [None] * n
    labels = checked_labels(values, path, [f"row {i}" for i in range(n)], report)

    def entries() -> Iterator[Entry]:
        with opened() as file:
            batches = file.iter_batches(_BATCH_ROWS, columns=[image])
            cells = (row[image] for batch in batches for row in batch.to_pylist())
            for number, (cell, label_of_row) in enumerate(zip(cells, labels, strict=True)):
                name, item = _cell(cell, path, number)
                yield Entry(name, item, label_of_row)

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


def _columns(path: Path, titles: Sequence[str], report: DataReport) -> tuple[str, str | None]:
    """Return the keys of the columns of images and of labels; the report tells when there are others, but no labels."""
    keys = checked_keys(path, titles)
    image, label = column_of(keys, IMAGE_COLUMNS), column_of(keys, LABEL_KEYS)
    if image is None:
        raise InvalidData(
            f"{path} has the columns {printable(', '.join(titles)) or 'none'}; name the one with the images"
            f" {', '.join(IMAGE_COLUMNS)}, and the one with the labels {', '.join(LABEL_KEYS)}."
        )
    others = [title for key, title in zip(keys, titles, strict=True) if key != image]
    if label is None:
        note_no_labels(others, report)
    return image, label
