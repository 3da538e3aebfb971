"""Atomic writes, a lock that dies with its process, and torch files that run no code."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
import shutil
import socket
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from cfnseg.errors import UserError, first_line

ALMOST_FULL = 2**16  # bytes: what failed on a disk with less failed for want of space


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary path, then rename it; a crash leaves the old or the new file.

    If several processes or threads write the same path at once, the last to finish wins. A write
    removes what killed processes left of theirs more than an hour ago.

    Raises:
        UserError: the folder cannot be written or the disk is full; the old file is intact and the
            temporary one removed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")  # one per writer
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_left(path)
        write(temporary)
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        mask = os.umask(0)  # safetensors makes files that only their owner can read
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(path)
    except BaseException as error:
        reason = first_line(error)
        with contextlib.suppress(OSError):
            if shutil.disk_usage(path.parent).free < ALMOST_FULL:
                reason = "no space left on the disk"
            temporary.unlink(missing_ok=True)
        # torch and safetensors report a full disk by errors of their own
        if isinstance(error, OSError | RuntimeError) or type(error).__name__ == "SafetensorError":
            kept = "; the file there before is intact" if path.exists() else ""
            raise UserError(f"{path} could not be written ({reason}){kept}") from None
        raise


def _remove_left(path: Path) -> None:
    """Remove temporary paths that killed processes left an hour ago or earlier."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*.tmp"):
        with contextlib.suppress(OSError):  # another process may have renamed it since
            if time.time() - left.stat().st_mtime > 3600:
                left.unlink()


def is_folder_name(name: str) -> bool:
    """Can ``name`` name one folder on any system? ``..`` and paths cannot."""
    return (
        name.strip() not in ("", ".", "..")
        and name.isprintable()
        and not set(name) & {"/", "\\"}
        and len(name.encode()) <= 200
    )


def can_be_folder(path: str) -> bool:
    """Is ``path`` a folder, or free for one?"""
    try:
        around = (Path(path), *Path(path).parents)
        free = all(p.is_dir() or not (p.exists() or p.is_symlink()) for p in around)
    except OSError:  # a name that is too long, a folder that cannot be read
        return False
    return bool(path) and "\0" not in path and free


def load_plain(path: Path) -> Any:
    """What torch.save wrote: tensors and plain values, on the CPU. No code in the file runs.

    Raises:
        UserError: the file is absent, corrupt or holds anything else.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a parser of garbage raises anything
        reason = f"({first_line(error)})"
        raise UserError(
            f"{path} is corrupt or holds more than tensors and was not loaded {reason}"
        ) from None


_HELD: set[Path] = set()  # this process's locks: the system does not exclude its own threads
_HELD_LOCK = threading.Lock()


@contextlib.contextmanager
def locked(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock file ``path``; the system frees it when this process ends, however it ends.

    Child processes do not inherit a record lock (POSIX), so loaders that outlive a killed run hold
    nothing.

    Args:
        path: names its holder; removed at the end, with its folder if that is empty.
        busy: start of the error if another process or thread holds it.

    Raises:
        UserError: it is held, or the folder cannot be written.
    """
    path = path.resolve()
    with _HELD_LOCK:
        if path in _HELD:
            raise UserError(f"{busy} (by this process, {os.getpid()})", code=2)
        file = _locked_file(path, busy)
        _HELD.add(path)
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield
    finally:
        with _HELD_LOCK:
            _HELD.discard(path)
            with contextlib.suppress(OSError):
                path.unlink()
                path.parent.rmdir()
            file.close()


def _locked_file(path: Path, busy: str) -> TextIO:
    """``path``, open and locked."""
    for attempt in range(10):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            file = path.open("a+")
        except OSError as error:
            raise UserError(f"{path} could not be written ({first_line(error)})") from None
        try:
            _lock(file.fileno())
        except BlockingIOError:
            file.seek(0)
            holder = file.read(200).strip()
            file.close()
            raise UserError(f"{busy}{f' (by {holder})' if holder else ''}", code=2) from None
        except OSError:
            return file  # without locks on this file system, the run goes on unprotected
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(file.fileno()), path.stat()):
                return file
        if attempt < 9:
            file.close()  # its last holder removed it meanwhile
    return file


def _lock(descriptor: int) -> None:
    """Lock an open file or raise BlockingIOError; OSError where the file system has no locks."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined]  # Windows
        except OSError as error:
            raise BlockingIOError(*error.args) from None
        return
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except PermissionError as error:  # some systems report a held lock so
        raise BlockingIOError(*error.args) from None
