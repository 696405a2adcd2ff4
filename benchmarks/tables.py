r"""Whether tables are read as they were written, and as pandas reads them: .csv of random titles, cells and formats.

Each table is written by Python's csv module with one of three separators, three line ends, six encodings and two ways
of quoting; its cells hold separators, quotes, line breaks, and characters at which other readers end a row. pandas is
told the separator and the encoding, which our reader has to find; it is not needed by anything else:

    pip install pandas && python benchmarks/tables.py
"""

import argparse
import csv
import io
import sys
import tempfile
from pathlib import Path

import numpy as np

from aigc_sdk.data.dataset import DataReport
from aigc_sdk.data.tables import LABEL_KEYS, read_csv
from aigc_text.data import TEXT_KEYS
from timing import Report

ENCODINGS = ("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32")
WORDS = ("one", "Zwei", "drei", "très", "春天", "4,5", "a;b", "tab\there", 'say "hi"', "x\u2028y", "\x85", "\f", "\x1e")
WORDS = (*WORDS, "5'", " ", "-", "NA", "1.0", "007", "😀", "#", "\\", "a\nb", '"', "''", "\u00a0", "end.")
TITLES = ("id", "note", "size, in cm", "Preis; netto", "date", "who", "größe", "2")


def make_table(rng: np.random.Generator) -> list[list[str]]:
    """Return rows of cells, the first of them titles, one of which is that of texts."""
    columns = int(rng.integers(1, 6))
    titles = [str(rng.choice(TEXT_KEYS)), *rng.choice(TITLES, columns - 1, replace=False).tolist()]
    if columns > 1 and rng.random() < 0.7:
        titles[1] = str(rng.choice(LABEL_KEYS))
    order = rng.permutation(columns)
    rows = [
        ["".join(rng.choice(WORDS, rng.integers(1, 7)).tolist()) for _ in titles] for _ in range(rng.integers(3, 60))
    ]
    return [[row[i] for i in order] for row in [titles, *rows]]


def written(table: list[list[str]], separator: str, end: str, *, quote_all: bool) -> str:
    """Return a table as text."""
    file = io.StringIO(newline="")
    quoting = csv.QUOTE_ALL if quote_all else csv.QUOTE_MINIMAL
    csv.writer(file, delimiter=separator, lineterminator=end, quoting=quoting).writerows(table)
    return file.getvalue()


def by_pandas(path: Path, separator: str, encoding: str) -> list[list[str]]:
    """Return the rows of a table as pandas reads them."""
    import pandas as pd  # not needed to read this script

    frame = pd.read_csv(
        path, sep=separator, encoding=encoding, dtype=str, keep_default_na=False, skip_blank_lines=False
    )
    return frame.to_numpy().tolist()


def main() -> int:
    """Write and read the tables, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="tables")
    n = parser.parse_args().n
    report, rng = Report("pandas"), np.random.default_rng(0)
    right = same = told = 0
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.csv")
        for number in range(n):
            table, separator = make_table(rng), str(rng.choice([",", ";", "\t"]))
            end, encoding = str(rng.choice(["\n", "\r\n", "\r"])), str(rng.choice(ENCODINGS))
            quote_all = bool(rng.random() < 0.3) or end == "\r"  # with it, Python's writer leaves line feeds unquoted
            text = written(table, separator, end, quote_all=quote_all)
            path.write_bytes(text.encode(encoding))
            found = DataReport(what="text")
            rows = [[*row.cells.values()] for row in read_csv(path, (*TEXT_KEYS, *LABEL_KEYS), found).rows]
            told += bool(found.skipped or found.notes)
            if rows == table[1:]:
                right += 1
            else:
                print(f"table {number}, {separator!r}, {end!r}, {encoding}: {table[0]}", file=sys.stderr)
            theirs = by_pandas(path, separator, encoding)
            same += rows == theirs
    report.at_least("tables read as they were written", right / n, 1)
    report.at_least("tables read as pandas reads them", same / n, 1)
    report.at_most("tables of which something was left out", told, 0)
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
