"""Rate and ETA on a clock that the test moves."""

import io

import pytest
from rich.console import Console

from cfnseg.progress import Progress, clock_time, progress
from cfnseg.training.log import Read, RunLog


class Clock:
    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def printed(console):
    return console.file.getvalue().splitlines()


def plain():
    return Console(file=io.StringIO(), soft_wrap=True, width=300)


def work(clock, seconds, count):
    for item in range(count):
        clock.now += seconds
        yield item


def test_a_line_every_ten_seconds(clock):
    console = plain()
    assert list(progress(work(clock, 4, 10), 10, "evaluate", console=console, clock=clock)) == list(
        range(10)
    )
    assert printed(console) == [
        f"evaluate {n}/10  0.2 images/s  ETA 0:00:{eta:02d}"
        for n, eta in ((3, 28), (6, 16), (9, 4))
    ]


def test_short_work_and_no_name_are_silent(clock):
    console = plain()
    assert len(list(progress(work(clock, 1, 9), 9, "evaluate", console=console, clock=clock))) == 9
    assert len(list(progress(work(clock, 100, 9), 9, "", console=console, clock=clock))) == 9
    assert printed(console) == []


def test_a_terminal_has_a_bar_that_makes_room(clock):
    console = Console(file=io.StringIO(), force_terminal=True, width=120)
    with Progress("step", 4, console=console, lasting=True, clock=clock) as display:
        for done in (1, 2):
            clock.now += 2
            display.show(done, "loss 1", display.mark(done))
        with display.pause():
            assert list(
                progress(work(clock, 30, 2), 2, "validate", console=console, clock=clock)
            ) == [0, 1]
        clock.now += 2
        assert display.mark(3) == pytest.approx(0.5)
    text = console.file.getvalue()
    assert "validate" in text and "2/4" in text and "ETA 0:00:04" in text


def test_training_counts_training_time_and_knows_what_follows(tmp_path, clock):
    """After a validation the rate is still the steps'; the ETA has validations and the report."""
    log = RunLog(tmp_path / "log.jsonl", 40, clock=clock)
    log.console.file = io.StringIO()
    read = Read(1, 0.5, 1.0, False, [])
    with log:
        for step in range(1, 41):
            clock.now += 2
            log.step(step, step / 10, read, 0.01, 8, validations=4 - (step - 1) // 10)
            if step % 10 == 0:
                with log.validating():
                    clock.now += 60
    lines = log.console.file.getvalue().splitlines()
    assert lines[0] == "step 1/40  epoch 0.10  loss 0.5000  lr 1.00e-02  waiting 0.0%"
    assert (
        lines[1] == "step 6/40  epoch 0.60  loss 0.5000  lr 1.00e-02  "
        "4.0 images/s  waiting 0.0%  ETA 0:01:08 + validation"
    )
    assert lines[2].startswith("step 11/40") and lines[2].endswith(
        "  4.0 images/s  waiting 0.0%  ETA 0:04:58"
    )  # 29 x 2 + 4 x 60
    assert lines[-1].startswith("step 40/40") and lines[-1].endswith("ETA 0:02:00")
    assert not any("0.0 images/s" in line or "ETA 0:00:00" in line for line in lines)


def test_clock_time():
    assert [clock_time(s) for s in (0, 59.9, 3600, 90061)] == [
        "0:00:00",
        "0:00:59",
        "1:00:00",
        "25:01:01",
    ]
