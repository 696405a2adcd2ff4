"""Folders: the files in one, and which of its sub-folders gave none."""

import os
from collections import deque
from collections.abc import Collection, Iterator
from pathlib import Path

from aigc_sdk.data.dataset import DataReport, examples
from aigc_sdk.errors import printable
from aigc_sdk.names import composed

# Folders that systems and network drives make, in lower case; what is in them is nobody's data.
_SYSTEM_FOLDERS = frozenset(
    ("@eadir", "@tmp", "@recycle", "@recently-snapshot", "#recycle", "#snapshot", "$recycle.bin", "lost+found")
).union(("__macosx", "system volume information", "found.000", "network trash folder", "temporary items"))


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
                    elif entry.name.lower() in _SYSTEM_FOLDERS:
                        report.skip("system folder", path)
                    elif entry.is_symlink():
                        folders.append(path)
                    else:
                        folders.appendleft(path)
        except PermissionError:
            if not name:
                raise
            report.skip("no permission", name)


def empty_folders(what: str, folder: Path, labels: Collection[str | None], report: DataReport) -> list[str]:
    """Return a note on the folders that would be labels, but have nothing in them; none where there are no labels."""
    told = {line.partition("\t")[2] for line in report.left_out}
    with os.scandir(folder) as entries:
        names = sorted(entry.name for entry in entries if _is_folder(entry) and not entry.name.startswith("."))
    empty = [name for name in names if composed(name) not in labels and printable(name) not in told]
    if not empty or set(labels) == {None}:
        return []
    return [f"folders without {what}s, which are no labels: {examples(empty)}"]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False
