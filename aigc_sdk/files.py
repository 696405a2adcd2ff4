"""Files: written whole or not at all, and where the cache is."""

import os
import re
import stat
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aigc_sdk.errors import AigcError, InvalidRequest, StorageError, shown

# The names that `atomic_write` gives; a process that was killed leaves its files behind.
TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")

_KEEP_DAYS = 30


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path in the same folder; on leaving, sync it and put it in the place of `path`.

    If anything fails, the temporary file is removed and what was at `path` before stays.

    Raises:
        StorageError: the folder is missing or not writable, or the disk is full.
    """
    target = as_path(path, "the file to write")
    if os.path.isdir(target):
        raise StorageError(f"Cannot write {target}: it is a folder.")
    temporary = target.parent / f".{os.urandom(8).hex()}.tmp"
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        # ValueError: a NUL character in the path
        if isinstance(error, OSError | ValueError) and not isinstance(error, AigcError):
            raise storage_error("write", target, error) from error
        raise


@contextmanager
def atomic_pair(
    path: str | os.PathLike[str], beside: str | os.PathLike[str], *, asked: str | os.PathLike[str] | None = None
) -> Iterator[tuple[Path, Path]]:
    """Give temporary paths for two files that belong together; on leaving, put both in their places.

    What was at `path` goes, then the new one takes its place at `beside`, then the one at `path`. So whatever ends the
    process in between leaves `beside` alone: where both are, they belong together. If anything fails before that, what
    was there stays.

    Args:
        path: what says nothing wrong when it is missing: an item, or the card beside a model.
        beside: what is of use alone: the model, or the provenance of an item.
        asked: the one of both that was asked for, which errors name; `path` if left out.

    Raises:
        StorageError: as in `atomic_write`.
    """
    target = as_path(path, "the file to write")
    with atomic_write(target) as temporary, atomic_write(beside) as temporary_beside:
        try:
            yield temporary, temporary_beside
            for each in (temporary, temporary_beside):  # both whole, before what was there goes
                with open(each, "rb+") as file:
                    os.fsync(file.fileno())
            target.unlink(missing_ok=True)
        except AigcError:
            raise
        except (OSError, ValueError) as error:  # whichever of both it is
            raise storage_error("write", target if asked is None else as_path(asked, "the file"), error) from error


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write the bytes to `path`, whole or not at all; raises StorageError."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def as_path(value: object, name: str) -> Path:
    """Return what a caller gave as a path; an empty one would be the current folder.

    Raises:
        InvalidRequest: it is none; `name` is what the message calls it.
    """
    text = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(text, str) or not text or "\0" in text:
        raise InvalidRequest(f"{name} is {shown(value if text is None else text)}; give a path.")
    return Path(text)


def read_file(path: Path) -> bytes:
    """Return the bytes of a regular file; a pipe would wait for somebody who writes into it. Raises StorageError."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise StorageError(f"Cannot read {path}: it is no regular file.")
        return path.read_bytes()
    except AigcError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise storage_error("read", path, error) from error


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make the folder and its parents if they are missing; raises StorageError."""
    folder = as_path(path, "the folder to make")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise storage_error("make", folder, error) from error
    return folder


def storage_error(verb: str, path: Path, error: OSError | ValueError) -> StorageError:
    """Say which path an error is about and what it was."""
    name = str(path) if len(str(path)) <= 300 else f"{str(path)[:150]}...{str(path)[-50:]}"
    return StorageError(f"Cannot {verb} {name}: {getattr(error, 'strerror', None) or error}.")


def cache_folder() -> Path:
    """Return the folder for what can be made again: `AIGC_SDK_CACHE`, or the platform's own.

    Raises:
        StorageError: the platform's is in the home folder, and there is none.
    """
    if chosen := os.environ.get("AIGC_SDK_CACHE"):
        return Path(chosen)
    try:
        if sys.platform == "win32":
            base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
        elif sys.platform == "darwin":
            base = Path.home() / "Library" / "Caches"
        else:
            base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError as error:
        raise StorageError("There is no home folder to keep a cache in; name a folder in AIGC_SDK_CACHE.") from error
    return base / "aigc_sdk"


def remove_unused(folder: Path) -> None:
    """Remove the files of a folder of the cache that were not used for 30 days, and what a killed process has left.

    A file was used at the time that it bears; who reads one again calls `os.utime`. What cannot be removed stays.
    """
    with suppress(OSError):
        for path in folder.rglob("*"):
            days = 1 if path.suffix == ".tmp" else _KEEP_DAYS
            with suppress(OSError):
                if path.is_file() and time.time() - path.stat().st_mtime > days * 86400:
                    path.unlink()
