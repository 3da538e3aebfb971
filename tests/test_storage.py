"""Atomic writes and locks, also with other writers."""

import os
import signal
import subprocess
import sys
import threading

import pytest
import torch
from safetensors.torch import save_file

from cfnseg.errors import UserError
from cfnseg.storage import locked, write_atomic
from tests.conftest import REPO


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")

    def full_disk(temporary):
        temporary.write_text("ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"No space left on device.*intact"):
        write_atomic(path, full_disk)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        write_atomic(tmp_path / "f" / "x", lambda temporary: temporary.write_text(""))


def test_two_writers_of_the_same_file(tmp_path):
    """Both write at once; neither removes the other's temporary path."""
    path, meet, failed = tmp_path / "f", threading.Barrier(2, timeout=30), []

    def write(text):
        def fill(temporary):
            temporary.write_text(text)
            meet.wait()

        try:
            write_atomic(path, fill)
        except UserError as error:
            failed.append(error)

    both = [threading.Thread(target=write, args=(text,)) for text in ("one", "two")]
    for writer in both:
        writer.start()
    for writer in both:
        writer.join()
    assert not failed
    assert path.read_text() in ("one", "two")
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_killed_writer_left_is_removed_an_hour_later(tmp_path):
    old, new, other = (tmp_path / name for name in (".f[1].00.tmp", ".f[1].11.tmp", ".g.00.tmp"))
    for left in (old, new, other):
        left.write_text("half")
    for left in (old, other):
        os.utime(left, (0, 0))
    write_atomic(tmp_path / "f[1]", lambda temporary: temporary.write_text("whole"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [".f[1].11.tmp", ".g.00.tmp", "f[1]"]


HOLDER = """
import multiprocessing, sys, time
from pathlib import Path
from cfnseg.storage import locked

with locked(Path(sys.argv[1]), "busy"):
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    print(child.pid, flush=True)
    time.sleep(60)
"""


def test_a_lock_dies_with_its_process(tmp_path):
    """Also if a loader process outlives it."""
    path = tmp_path / "run" / ".lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=REPO,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    child = int(holder.stdout.readline())
    try:
        with (
            pytest.raises(UserError, match=rf"^busy \(by process {holder.pid} on "),
            locked(path, "busy"),
        ):
            pass
        holder.kill()
        holder.wait()
        os.kill(child, 0)  # still there
        with (
            locked(path, "busy"),
            pytest.raises(UserError, match=rf"^busy \(by this process, {os.getpid()}\)"),
            locked(path, "busy"),
        ):
            pass
        with locked(path, "busy"):
            pass
        assert not path.parent.exists(), "nothing is left of a run that wrote nothing"
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_full_disk_is_named_and_what_was_there_stays(full_disk):
    path = full_disk / "weights.pt"
    write_atomic(path, lambda temporary: temporary.write_bytes(b"before"))
    tensor = {"a": torch.zeros(60_000)}
    for write in (
        lambda temporary: torch.save(tensor, temporary),
        lambda temporary: save_file(tensor, temporary),
        lambda temporary: temporary.write_bytes(bytes(240_000)),
    ):
        with pytest.raises(UserError, match=r"[Nn]o space .*; the file there before"):
            write_atomic(path, write)
        assert path.read_bytes() == b"before" and len(list(full_disk.iterdir())) == 1
