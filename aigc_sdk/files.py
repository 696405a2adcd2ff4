"""Files: written whole or not at all, and where the cache is."""

import os
import re
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aigc_sdk.errors import AigcError, StorageError

# The names that `atomic_write` gives; a process that was killed leaves its files behind.
TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.tmp")


@contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path in the same folder; on leaving, sync it and put it in the place of `path`.

    If anything fails, the temporary file is removed and what was at `path` before stays.

    Raises:
        StorageError: the folder is missing or not writable, or the disk is full.
    """
    target = Path(path)
    if target.is_dir():
        raise StorageError(f"Cannot write {target}: it is a folder.")
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(target)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and not isinstance(error, AigcError):
            raise storage_error("write", target, error) from error
        raise


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write the bytes to `path`, whole or not at all; raises StorageError."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Make the folder and its parents if they are missing; raises StorageError."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error("make", folder, error) from error
    return folder


def storage_error(verb: str, path: Path, error: OSError) -> StorageError:
    """Say which path an OSError is about and what it was."""
    return StorageError(f"Cannot {verb} {path}: {error.strerror or error}.")


def cache_folder() -> Path:
    """Return the folder for what can be made again: `AIGC_SDK_CACHE`, or the platform's own."""
    if chosen := os.environ.get("AIGC_SDK_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local"))
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "aigc_sdk"
