"""Files that are whole or absent: written beside, then renamed."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from cfnseg.errors import UserError


def write_atomic(path: str | Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then rename it; a crash leaves the old file or the new one.

    Raises:
        UserError: the folder cannot be written or the disk is full; the old file is intact and the half one removed.
    """
    path = Path(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(beside)
        with beside.open("rb") as written:
            os.fsync(written.fileno())
        beside.replace(path)
    except Exception as error:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)
        # torch and safetensors report a full disk by errors of their own
        if isinstance(error, OSError | RuntimeError) or type(error).__name__ == "SafetensorError":
            kept = "; the file there before is intact" if path.exists() else ""
            raise UserError(f"{path} could not be written ({str(error).splitlines()[0]}){kept}") from None
        raise
