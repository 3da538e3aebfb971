"""What the processes of a run, perhaps on several hosts, agree on.

Rank 0 owns files: it alone reads and writes the run folder, and the others get what it read.
An error of one process is raised by all, so that none waits for one that is gone.
"""

from __future__ import annotations

import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import torch.distributed as dist
from lightning.fabric import Fabric

from cfnseg.errors import UserError

T = TypeVar("T")


def together(fabric: Fabric, work: Callable[[], T]) -> T:
    """``work()`` of this process, once every process has succeeded.

    Raises:
        UserError: the first one that any process raised, in all of them; it names the host.
    """
    error, result = None, None
    try:
        result = work()
    except UserError as raised:
        error = raised
    if fabric.world_size > 1:
        results = gather(fabric, (str(error), error.code, socket.gethostname()) if error else None)
        failed = [(rank, *what) for rank, what in enumerate(results) if what]
        if failed:
            rank, message, code, host = failed[0]
            alike = len({message for _, message, _, _ in failed}) == 1 and len(failed) == len(
                results
            )
            raise UserError(
                message if alike else f"{message} (process {rank} on {host})", code, everywhere=True
            )
    elif error:
        raise error
    return result


def from_main(fabric: Fabric, work: Callable[[], T]) -> T:
    """What ``work()`` returns on rank 0, in every process; the others do not call it.

    Args:
        fabric: the processes.
        work: returns what can be pickled; it may raise UserError.

    Raises:
        UserError: rank 0 raised it.
    """
    result = together(fabric, lambda: work() if fabric.global_rank == 0 else None)
    return fabric.broadcast(result, src=0)


def file_from_main(fabric: Fabric, path: Path, read: Callable[[Path], T]) -> T:
    """``read(path)`` in every process, of the file that rank 0 has; other hosts get a copy."""
    data = from_main(fabric, path.read_bytes) if fabric.world_size > 1 else None
    if fabric.global_rank == 0:
        return read(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(data)
        return read(copy)


def same_everywhere(fabric: Fabric, value: str, what: str) -> None:
    """Compare ``value`` with rank 0's. Raises UserError in all processes if one differs."""
    main = fabric.broadcast(value, src=0)

    def compare() -> None:
        if value != main:
            raise UserError(f"{what} differ from those of rank 0; every host needs the same data")

    together(fabric, compare)


def gather(fabric: Fabric, value: T) -> list[T]:
    """``value`` of every process, in the order of their ranks; it must be picklable."""
    if fabric.world_size == 1:
        return [value]
    found: list = [None] * fabric.world_size
    dist.all_gather_object(found, value)
    return found
