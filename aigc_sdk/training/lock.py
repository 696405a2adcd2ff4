"""Lock: one training at a time in a run folder."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from aigc_sdk.errors import StorageError
from aigc_sdk.files import make_folder, storage_error

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Make the run folder and keep other trainings out of it; it is removed again when nothing was written.

    The kernel lets go of the lock when the process ends, however it ends. Where there are no such locks (Windows, some
    network file systems) nobody is kept out.

    Raises:
        StorageError: another training is under way in it, or it cannot be made or opened.
    """
    while True:
        is_new = not os.path.lexists(folder)
        make_folder(folder)
        descriptor = _lock(folder)
        if descriptor is None or _is_still(folder, descriptor):
            break
        os.close(descriptor)  # another training has removed this one since
    try:
        yield
    finally:
        if is_new:
            with suppress(OSError):  # it is not empty
                folder.rmdir()
        if descriptor is not None:
            os.close(descriptor)


def _lock(folder: Path) -> int | None:
    """Return a descriptor of the folder that holds the lock, or None where there are no locks."""
    if fcntl is None:
        return None
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise storage_error("train into", folder, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise StorageError(
            f"Another training is under way in {folder}; wait for it, or choose another --out."
        ) from error
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _is_still(folder: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), folder.stat())
    except FileNotFoundError:
        return False
