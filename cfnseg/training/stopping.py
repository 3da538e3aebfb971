"""A run is asked to stop by SIGINT (Ctrl-C) or SIGTERM (timeout, SLURM, Kubernetes)."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from cfnseg.errors import Stopped

SIGNALS = (signal.SIGINT, signal.SIGTERM)
REPEATED = 2.0  # seconds within which the same request arrives more than once


class Stopping:
    """Within this context SIGINT and SIGTERM set ``asked``; the run checks it where it can stop.

    `timeout` and `torchrun` deliver a signal twice, once to the process and once to its group.
    A Ctrl-C more than two seconds after the first stops at once, but not under torchrun, which
    repeats it. In a thread that is not the main one no signal can be handled: ``asked`` stays 0.
    """

    def __init__(self) -> None:
        self.asked = 0
        self._since = 0.0
        self._old: dict[int, object] = {}

    def __enter__(self) -> Stopping:
        if threading.current_thread() is threading.main_thread():
            self._old = {number: signal.signal(number, self._ask) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if not self.asked:
            self.asked, self._since = number, time.monotonic()
        elif (
            number == signal.SIGINT
            and "TORCHELASTIC_RUN_ID" not in os.environ
            and time.monotonic() - self._since > REPEATED
        ):
            raise Stopped(number)

    def check(self) -> None:
        """Raise `Stopped` if a stop was asked for."""
        if self.asked:
            raise Stopped(self.asked)
