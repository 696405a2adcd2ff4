"""Tables: the rows of .csv, .tsv and .jsonl files by the titles of their columns, and what a label is.

Tables of images and of texts are read by this alone. Rows end at line breaks and at no other character, and what does
not fit is named: nothing is guessed at, and nothing is cut.
"""

import csv
import io
import json
import math
import re
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aigc_sdk.data.dataset import DataReport, examples
from aigc_sdk.data.encodings import read_text
from aigc_sdk.errors import InvalidData, printable, shown
from aigc_sdk.names import composed

# The names that a column of labels may have, in any case of their letters; the array of an .npz file too.
LABEL_KEYS = ("label", "class", "target", "labels", "y", "targets")

# Cells that stand for none in a column of labels: those that pandas reads so and writes.
_NONE = frozenset(
    ("#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL")
).union(("NaN", "None", "n/a", "nan", "null"))
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?", re.ASCII)

_SEPARATORS = ",;\t"  # of those that fit alike the first, of a .tsv the last
_SAMPLE_ROWS = 200  # by which the separator is found
# The most that Python's csv module takes; on Windows it is kept as 32 bits.
_FIELD_CHARACTERS = 2**31 - 1
_field_limit = threading.Lock()  # the limit is one of the whole process


class Row(NamedTuple):
    """A row: the line that it begins on, and its cells by the keys of their columns; of .csv they are texts or None."""

    line: int
    cells: dict[str, Any]


def note_no_labels(others: Sequence[str], report: DataReport) -> None:
    """Let the report tell that none of the columns besides that of the items is one of labels, if there are any."""
    if others:
        report.notes.append(
            f"no labels: of the columns {', '.join(map(printable, others))} none is called {', '.join(LABEL_KEYS)}"
        )


@dataclass(frozen=True)
class Table:
    """A table as it was read.

    Attributes:
        titles: of the columns, as they are written but for blanks around them.
        rows: in order; of .jsonl a row has the cells that its line has.
    """

    titles: tuple[str, ...]
    rows: list[Row]

    def column(self, known: Sequence[str]) -> str | None:
        """Return the first of the known keys that a column has."""
        return column_of(map(_key, self.titles), known)


def read_csv(path: Path, known: Sequence[str], report: DataReport) -> Table:
    """Read a table with a line of titles, its cells separated by commas, semicolons or tabs.

    A row with more cells than there are titles is left out; one with fewer has None for what is missing, and a note.

    Args:
        path: the file.
        known: keys of columns, of which the titles are likely to have some.
        report: what is left out is added to it.

    Raises:
        InvalidData: a quote is open, two columns have one title, or it is no text.
    """
    text = read_text(path)
    separator = _separator(text, known, _SEPARATORS[:: -1 if path.suffix.lower() == ".tsv" else 1])
    records = _records(path, text, separator)
    _, first = next(records, (1, []))
    titles = tuple(title.strip().strip("\ufeff") for title in first)
    keys = checked_keys(path, titles)
    rows, short = list[Row](), list[str]()
    for line, fields in records:
        if len(fields) > len(keys):
            report.skip("more cells than titles", f"line {line}", f"{len(fields)} cells, {len(keys)} titles")
            continue
        if len(fields) < len(keys):
            short.append(f"line {line}")
        rows.append(Row(line, dict.fromkeys(keys) | dict(zip(keys, fields, strict=False))))
    if short:
        rows_are = "1 row has" if len(short) == 1 else f"{len(short):,} rows have"
        report.notes.append(f"{rows_are} fewer cells than titles, and the rest empty: {examples(short)}")
    return Table(titles, rows)


def _separator(text: str, known: Sequence[str], separators: str) -> str:
    """Return what separates cells, told by the titles and by how many cells the first rows have.

    Titles that are known count first, then rows of as many cells as there are titles. Where no separator divides the
    titles, there is one column, whose cells may hold all of them.
    """
    found = {each: score for each in separators if (score := _fit(text, each, known))}
    if found:
        return max(found, key=lambda each: found[each])
    return next(each for each in map(chr, range(0xE000, 0xF8FF)) if each not in text)


def _fit(text: str, separator: str, known: Sequence[str]) -> tuple[int, float, int] | None:
    """Return how well a separator fits a table, or None where it does not divide the titles."""
    rows = list[list[str]]()
    with suppress(csv.Error):  # in a row that will be named if this is the separator; those before it count
        rows.extend(islice(filter(None, _reader(text, separator)), _SAMPLE_ROWS))
    if not rows or len(rows[0]) < 2:
        return None
    named = len({_key(title) for title in rows[0]}.intersection(known))
    fitting = sum(len(row) == len(rows[0]) for row in rows[1:])
    return named, fitting / max(1, len(rows) - 1), len(rows[0])


def _reader(text: str, separator: str) -> Any:
    return csv.reader(io.StringIO(text, newline="\n"), delimiter=separator, strict=True)


def _records(path: Path, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line that each record begins on, and its fields, without empty lines; raises InvalidData."""
    reader, records, line = _reader(text, separator), list[tuple[int, list[str]]](), 1
    with _field_limit:
        limit = csv.field_size_limit(_FIELD_CHARACTERS)
        try:
            for fields in reader:
                records.append((line, fields))
                line = reader.line_num + 1
        except csv.Error as error:
            wrong = _wrong_quote(text, separator, line, error, reader.line_num)
            raise InvalidData(f"{path}, {wrong}") from error
        finally:
            csv.field_size_limit(limit)
    return ((line, fields) for line, fields in records if fields)


def _wrong_quote(text: str, separator: str, begin: int, error: csv.Error, end: int) -> str:
    """Return where a quote is open, in a record that begins on a line and fails on another, and what to do."""
    if "unexpected end" not in str(error):
        return (
            f"line {begin}: behind the quote that closes a cell, on line {end}, something follows. A quote is open, or"
            " one inside of quotes is not written twice."
        )
    rest = "".join(islice(io.StringIO(text, newline="\n"), begin - 1, None))
    (*_, last), *_ = csv.reader(io.StringIO(rest, newline="\n"), delimiter=separator)
    opened = begin + rest.count("\n") - last.count("\n")
    return f"line {opened}: the quote that opens there is never closed. One inside of quotes is written twice."


def read_jsonl(path: Path) -> Table:
    """Read a file of one JSON object a line; its names are the titles.

    Raises:
        InvalidData: a line is no object, or has one name twice; or it is no text.
    """
    rows, titles = list[Row](), dict[str, None]()
    for line, written in enumerate(read_text(path).split("\n"), 1):
        if not written.strip():
            continue
        try:
            pairs = json.loads(written, object_pairs_hook=_Pairs)
        except (ValueError, RecursionError) as error:
            raise InvalidData(f"{path}, line {line}, is no JSON: {error}.") from error
        if not isinstance(pairs, _Pairs):
            raise InvalidData(f"{path}, line {line}, is {shown(pairs)}; give an object with a text in each line.")
        names = [str(name).strip() for name, _ in pairs]
        keys = checked_keys(f"{path}, line {line},", names)
        titles |= dict.fromkeys(names)
        rows.append(Row(line, {key: _plain(value) for key, (_, value) in zip(keys, pairs, strict=True)}))
    return Table(tuple(titles), rows)


class _Pairs(list[tuple[str, Any]]):
    """The names and values of a JSON object, of which a dict would lose one that stands twice."""


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, _Pairs) else value


def _key(title: str) -> str:
    return composed(title.strip().strip("\ufeff").lower())


def checked_keys(where: Path | str, titles: Sequence[str]) -> list[str]:
    """Return the keys of columns by their titles, which are the same whatever their capitals.

    Raises:
        InvalidData: two columns have one title.
    """
    keys = [_key(title) for title in titles]
    for number, key in enumerate(keys):
        if key and (first := keys.index(key)) != number:
            raise InvalidData(
                f"{where} has two columns of one title, {shown(titles[first])} and {shown(titles[number])}, the"
                f" {first + 1}. and the {number + 1}.; rename one of them, or remove it."
            )
    return keys


def column_of(keys: Iterable[str], known: Sequence[str]) -> str | None:
    """Return the first of the known keys that a table has."""
    there = set(keys)
    return next((key for key in known if key in there), None)


def checked_labels(
    values: Sequence[Any], where: Path | str, places: Sequence[str], report: DataReport
) -> list[str | int | None]:
    """Return labels as they are counted: all of them texts or all whole numbers, and None where there is none.

    None are an empty cell, NaN, and what pandas writes for them. Numbers are the same however they are written: 1, 1.0
    and "1.0" are one label where all labels are numbers, and the report says so.

    Args:
        values: one for each row.
        where: what messages call the table.
        places: the name of each row.
        report: gets a note on numbers that were written in two ways.

    Raises:
        InvalidData: one is no text and no number; names the row.

    Example:
        >>> checked_labels([1.0, "2", float("nan"), "NA"], "t.jsonl", ["line 1"] * 4, DataReport())
        ['1', '2', None, None]
    """
    labels = [_checked_label(value, where, place) for value, place in zip(values, places, strict=True)]
    there = [label for label in labels if label is not None]
    if nones := sorted({value for value in values if isinstance(value, str) and value in _NONE}):
        report.notes.append(f"labels that were taken for none, as pandas writes it: {examples(nones)}")
    if all(isinstance(label, int) or (isinstance(label, float) and label.is_integer()) for label in there):
        return [label if label is None else int(label) for label in labels]
    words = [label if label is None else str(label) for label in labels]
    numbers = all(map(_NUMBER.fullmatch, filter(None, words))) and any("." in word for word in filter(None, words))
    if not numbers:
        return [*words]
    if written := [label for label in there if isinstance(label, str) and label != _shortest(label)]:
        report.notes.append(f"labels are numbers, however they are written: {written[0]} is {_shortest(written[0])}")
    return [word if word is None else _shortest(word) for word in words]


def _checked_label(value: Any, where: Path | str, place: str) -> str | int | float | None:
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or type(value).__name__ in ("NAType", "NaTType"):  # of pandas, which need not be there
        return None
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, float):
        return None if math.isnan(value) else value
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        if "\0" in value:
            raise InvalidData(f"{where}, {place}: the label is {shown(value)}, in which no NUL character can be.")
        return None if not value.strip() or value in _NONE else composed(value)
    raise InvalidData(
        f"{where}, {place}: the label is {shown(value)}, of type {type(value).__name__}; give a text or a number."
    )


def _shortest(number: str) -> str:
    """Return a number as it is written without what says nothing."""
    whole, _, decimals = number.lstrip("+-").partition(".")
    value = f"{whole.lstrip('0') or '0'}.{decimals}".rstrip("0").rstrip(".")
    return f"-{value}" if number.startswith("-") and value != "0" else value
