"""One training a run folder: a lock that the system drops with its process."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import socket
import warnings
from collections.abc import Iterator
from pathlib import Path

from hepipe.errors import HepipeWarning, StoreError

_NAME = ".training.lock"


@contextlib.contextmanager
def claimed(folder: Path, *, run: str) -> Iterator[None]:
    """Hold a run's folder while it trains.

    Raises:
        StoreError: Another process trains into it; names process and host.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _NAME
    lock = _locked(path, run=run)
    try:
        os.truncate(lock, 0)
        os.pwrite(lock, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}).encode(), 0)
        yield
    finally:
        # Removed while held: who has opened the same file meanwhile sees that it is gone and makes a new one.
        path.unlink(missing_ok=True)
        os.close(lock)


def _locked(path: Path, *, run: str) -> int:
    while True:
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(lock)
            os.close(lock)
            raise StoreError(
                f"run {run}: {holder} trains into {path.parent}; two trainings would overwrite each other's files. "
                "Wait for it or end it, or give this run another name or, by hand, another --out"
            ) from None
        except OSError as error:
            warnings.warn(
                f"{path.parent}: this file system has no locks ({error.strerror}); nothing else may train into it",
                HepipeWarning,
                stacklevel=4,
            )
            return lock
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(lock).st_ino:
                return lock
        os.close(lock)


def _holder(lock: int) -> str:
    try:
        told = json.loads(os.pread(lock, 1000, 0))
        return f"process {int(told['pid'])} on host {str(told['host'])[:100]}"
    except (ValueError, KeyError, TypeError):
        return "another process"
