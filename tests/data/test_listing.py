"""Which files of a folder are images: hidden files, suffixes, deeper folders, circular links."""

import os

import pytest

from cfnseg.data.files import list_images, note_left_out
from cfnseg.errors import UserError


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_hidden_files_are_in_neither_list(tmp_path):
    touch(
        *(
            tmp_path / name
            for name in (
                "a.png",
                "B.JPG",
                "c.TIF",
                "d.webp",
                "._a.png",
                ".DS_Store",
                "Thumbs.db",
                "notes.txt",
                "e.avif",
                "__MACOSX/f.png",
                ".cache/g.png",
                "deep/er/h.jpeg",
            )
        )
    )
    images, others = list_images(tmp_path)
    assert [p.name for p in images] == ["B.JPG", "a.png", "c.TIF", "d.webp"]
    assert [p.name for p in others] == ["e.avif", "notes.txt"]
    assert [p.name for p in list_images(tmp_path, deep=True)[0]][-1] == "h.jpeg"


def test_links_are_followed_and_circles_end(tmp_path):
    touch(tmp_path / "data" / "a.png", tmp_path / "other" / "b.png")
    (tmp_path / "data" / "more").symlink_to(tmp_path / "other")
    (tmp_path / "other" / "back").symlink_to(tmp_path / "data")
    (tmp_path / "data" / "gone.png").symlink_to(tmp_path / "nowhere")
    (tmp_path / "data" / "self.png").symlink_to(tmp_path / "data" / "self.png")
    names = [p.name for p in list_images(tmp_path / "data", deep=True)[0]]
    assert names == [
        "a.png",
        "gone.png",
        "b.png",
        "self.png",
    ]  # a link that leads nowhere is named when it is read


def test_names_that_are_no_text_are_refused(tmp_path):
    try:
        (tmp_path / os.fsdecode(b"a\xff.png")).touch()
    except OSError:
        pytest.skip("the disk takes no such name")
    with pytest.raises(UserError, match=r"a\\xff\.png': the file's name is no UTF-8"):
        list_images(tmp_path)


def test_names_that_look_like_options_or_lines(tmp_path):
    touch(tmp_path / "-rf.png", tmp_path / "two\nlines.png", tmp_path / "with space.png")
    assert len(list_images(tmp_path)[0]) == 3


def test_what_is_left_out_is_said_once(tmp_path, capsys):
    touch(tmp_path / "a.gif", tmp_path / "b.gif", tmp_path / "c.avif")
    for _ in range(2):
        note_left_out(tmp_path, list_images(tmp_path)[1])
    assert capsys.readouterr().err.count(f"3 files in {tmp_path} are left out") == 1
