"""Files are whole or absent, whoever else writes them."""

import os
import threading

import pytest

from cfnseg.errors import UserError
from cfnseg.storage import write_atomic


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "f"
    path.write_text("old")

    def full_disk(beside):
        beside.write_text("ha")
        raise OSError(28, "No space left on device")

    with pytest.raises(UserError, match=r"No space left on device.*intact"):
        write_atomic(path, full_disk)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "f").write_text("")
    with pytest.raises(UserError, match="could not be written"):
        write_atomic(tmp_path / "f" / "x", lambda beside: beside.write_text(""))


def test_two_writers_of_the_same_file(tmp_path):
    """Both are under way at once, and neither takes away what the other is writing."""
    path, meet, failed = tmp_path / "f", threading.Barrier(2, timeout=30), []

    def write(text):
        def fill(beside):
            beside.write_text(text)
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
    write_atomic(tmp_path / "f[1]", lambda beside: beside.write_text("whole"))
    assert sorted(p.name for p in tmp_path.iterdir()) == [".f[1].11.tmp", ".g.00.tmp", "f[1]"]
