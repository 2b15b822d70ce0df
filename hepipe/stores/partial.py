"""The hidden folder in which a store grows: its lock, files that survive a crash, errors of the disk."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

from hepipe.errors import HepipeWarning, StoreError


def partial_folder(path: Path) -> Path:
    """Where a store grows."""
    return path.with_name(f".{path.name}.partial")


def discard_partial(path: Path) -> None:
    """Remove what an unfinished writer of this store has left.

    Raises:
        StoreError: Another process writes it.
    """
    partial = partial_folder(path)
    if partial.exists():
        lock = locked(partial)
        shutil.rmtree(partial, ignore_errors=True)
        os.close(lock)


def locked(partial: Path) -> int:
    """A descriptor that holds the lock of a partial store; the system drops it with the process.

    Raises:
        StoreError: Another process holds it, or the folder cannot be written.
    """
    while True:
        with told(partial):
            partial.mkdir(parents=True, exist_ok=True)
            try:
                lock = os.open(partial / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
            except FileNotFoundError:
                # Its writer has just finished, and removed the folder.
                continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            raise StoreError(
                f"{partial}: another process writes this store; wait until it has ended, or end it"
            ) from None
        except OSError as error:
            warnings.warn(
                f"{partial}: this file system has no locks ({error.strerror}); nothing else may write this store",
                HepipeWarning,
                stacklevel=3,
            )
            return lock
        try:
            if os.stat(partial / "lock").st_ino == os.fstat(lock).st_ino:
                return lock
        except FileNotFoundError:
            pass
        os.close(lock)


@contextlib.contextmanager
def told(path: Path, slots: int = 0) -> Iterator[None]:
    """Errors of the disk as such that say what to do.

    Args:
        path: Of the store.
        slots: Tiles that are repeated at most after an error; 0: nothing is.
    """
    try:
        yield
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        what = "free some, then run the same command again" if full else "see to it, then run the same command again"
        kept = f": it goes on where it stopped and repeats {slots} tiles at most" if slots else ""
        raise StoreError(f"{path}: {error.strerror or error}; {what}{kept}") from error


def write_synced(file: Path, content: bytes) -> None:
    """A file that is whole under its name, whatever happens to the machine."""
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f"{file.name}.part")
    with beside.open("wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    os.replace(beside, file)
    sync_folder(file.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    except OSError:
        # Some network file systems know no fsync of folders.
        pass
    finally:
        os.close(opened)
