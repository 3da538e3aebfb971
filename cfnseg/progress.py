"""How far long work is, at what rate, and when it ends: one display for all commands."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
from rich.progress import Progress as Bar

T = TypeVar("T")
EVERY = 10.0  # seconds from line to line where there is no terminal
RECENT = 50  # updates that the rate is taken from


class Progress:
    """A bar in a terminal; elsewhere a line every 10 s. A context manager, which ends the bar.

    Args:
        what: the name of the work or of its unit, e.g. "step".
        total: units of the whole work; None = unknown, so that there is no ETA.
        console: where to; None = standard error.
        lasting: print the first and the last line too; without, work under 10 s prints nothing.
        clock: seconds.
    """

    def __init__(
        self,
        what: str,
        total: int | None,
        *,
        console: Console | None = None,
        lasting: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.what, self.total, self.lasting, self.clock = what, total, lasting, clock
        self.console = console or Console(stderr=True, soft_wrap=True)
        self.marks: list[tuple[float, int]] = []  # working time and units done
        self.paused = 0.0
        self.printed = -EVERY if lasting else clock()
        self.bar: Bar | None = None

    def mark(self, done: int) -> float | None:
        """Note that ``done`` units are done; returns units per second of working time, None if
        unknown yet."""
        self.marks = [*self.marks[-RECENT:], (self.clock() - self.paused, done)]
        seconds, units = (last - first for first, last in zip(self.marks[0], self.marks[-1]))
        return units / seconds if seconds > 0 else None

    def show(
        self, done: int, text: str, rate: float | None, later: float = 0.0, without: str = ""
    ) -> None:
        """Show a bar or, if it is time, a line.

        Args:
            done: units done.
            text: what else to say.
            rate: what `mark` returned; None = no ETA.
            later: seconds of other work to come, a part of the ETA.
            without: what the ETA leaves out.
        """
        if rate and self.total is not None:
            seconds = max(0, self.total - done) / rate + later
            text = f"{text}  ETA {clock_time(seconds)}{without}"
        if self.console.is_terminal:
            self._bar().update(self.task, completed=done, description=text)
            return
        due = self.clock() - self.printed >= EVERY
        if due or (self.lasting and done == self.total):
            self.printed = self.clock()
            units = done if self.total is None else f"{done}/{self.total}"
            self.console.print(f"{self.what} {units}  {text}", markup=False, highlight=False)

    def _bar(self) -> Bar:
        if self.bar is None:
            self.bar = Bar(
                TextColumn(f"[bold]{self.what}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.description}", markup=False),
                console=self.console,
                transient=not self.lasting,
            )
            self.task = self.bar.add_task("", total=self.total)
            self.bar.start()
        return self.bar

    @contextlib.contextmanager
    def pause(self) -> Iterator[None]:
        """Other work, which has no part in the rate. The bar makes room for another one."""
        began = self.clock()
        if self.bar:
            self.bar.stop()
        try:
            yield
        finally:
            self.paused += self.clock() - began
        if self.bar:
            self.bar.start()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self.bar:
            self.bar.stop()


def progress(
    items: Iterable[T], total: int | None, what: str, unit: str = "images", **settings: object
) -> Generator[T]:
    """The items, with a display of how many are done, units per second and ETA.

    Args:
        items: one a unit.
        total: how many there are; None = unknown.
        what: the name of the work; "" = no display.
        unit: plural.
        settings: as for `Progress`.
    """
    if not what:
        yield from items
        return
    with Progress(what, total, **settings) as display:
        display.mark(0)
        for done, item in enumerate(items, 1):
            yield item
            rate = display.mark(done)
            display.show(done, f"{rate or 0:.1f} {unit}/s", rate)


def clock_time(seconds: float) -> str:
    """Hours:minutes:seconds."""
    whole = int(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"
