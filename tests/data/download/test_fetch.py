"""Downloads from a local server with the usual faults; zips as other programs pack them."""

import hashlib
import io
import stat
import zipfile

import numpy as np
import pytest

from cfnseg.data.download import unpack as unpacking
from cfnseg.data.download.fetch import Archive, fetch
from cfnseg.data.download.unpack import unpack
from cfnseg.errors import UserError
from tests.data.download.server import serving

DATA = np.random.default_rng(0).bytes(3 << 20)
MD5 = "md5:" + hashlib.md5(DATA).hexdigest()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        server.files["/x.zip"] = DATA
        yield server


def test_a_file_is_fetched_once(server, tmp_path):
    archive = Archive(server.url("/x.zip"), "x.zip", len(DATA), MD5)
    for _ in range(2):
        assert fetch(archive, tmp_path / "new").read_bytes() == DATA
    assert server.asked == [("/x.zip", None)]
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["x.zip"]


def test_a_broken_line_is_continued_at_once(server, tmp_path):
    server.ends["/x.zip"] = [1 << 20, 1 << 20]
    assert (
        fetch(
            Archive(server.url("/x.zip"), "x.zip", 0, "sha256:" + hashlib.sha256(DATA).hexdigest()),
            tmp_path,
        ).read_bytes()
        == DATA
    )
    assert server.asked == [
        ("/x.zip", None),
        ("/x.zip", "bytes=1048576-"),
        ("/x.zip", "bytes=2097152-"),
    ]


def test_a_line_that_brings_nothing_more_leaves_its_part_for_the_next_call(server, tmp_path):
    archive = Archive(server.url("/x.zip"), "x.zip", len(DATA), MD5)
    server.ends["/x.zip"] = [500_000, 0]
    with pytest.raises(
        UserError,
        match=r"ended after 500000 of 3145728 bytes.*x\.zip\.part keeps 0\.5 MB.*By hand: get http",
    ):
        fetch(archive, tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["x.zip.part"]
    assert fetch(archive, tmp_path).read_bytes() == DATA
    assert server.asked[-1] == ("/x.zip", "bytes=500000-")


def test_a_server_without_ranges_starts_afresh(server, tmp_path):
    server.ranges, server.ends["/x.zip"] = False, [1 << 20]
    assert fetch(Archive(server.url("/x.zip"), "x.zip", 0, MD5), tmp_path).read_bytes() == DATA
    assert len(server.asked) == 2


def test_a_part_that_was_whole_is_taken(server, tmp_path):
    (tmp_path / "x.zip.part").write_bytes(DATA)
    assert (
        fetch(Archive(server.url("/x.zip"), "x.zip", len(DATA), MD5), tmp_path).read_bytes() == DATA
    )


def test_a_server_that_tells_no_length(server, tmp_path):
    server.announces = False
    assert fetch(Archive(server.url("/x.zip"), "x.zip"), tmp_path).read_bytes() == DATA


@pytest.mark.parametrize(
    "size, digest, message",
    [
        (0, "md5:" + "0" * 32, "has the MD5"),
        (0, "sha256:" + "0" * 64, "has the SHA256"),
        (7, "", "has 3145728 bytes, published are 7"),
    ],
)
def test_another_file_than_published_is_removed(server, tmp_path, size, digest, message):
    with pytest.raises(UserError, match=f"{message}.* it was removed"):
        fetch(Archive(server.url("/x.zip"), "x.zip", size, digest), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_file_put_there_by_hand_is_compared_and_kept(server, tmp_path):
    (tmp_path / "x.zip").write_bytes(DATA[:100])
    with pytest.raises(UserError, match=r"x\.zip has 100 bytes, published are 3145728. Remove it"):
        fetch(Archive(server.url("/x.zip"), "x.zip", len(DATA), MD5), tmp_path)
    assert (tmp_path / "x.zip").stat().st_size == 100
    assert not server.asked


def test_no_such_file_and_no_server(server, tmp_path):
    with pytest.raises(
        UserError,
        match=r"nowhere\.zip: the server answered 404 .* By hand: get .*save it as .*x\.zip",
    ):
        fetch(Archive(server.url("/nowhere.zip"), "x.zip"), tmp_path)
    server.shutdown()
    server.server_close()
    with pytest.raises(UserError, match=r"failed \(.*refused.*By hand"):
        fetch(Archive(server.url("/x.zip"), "x.zip"), tmp_path)
    assert not list(tmp_path.iterdir())


def packed(path, members):
    with zipfile.ZipFile(path, "w") as file:
        for name, data in members.items():
            file.writestr(name, data)
    return path


def test_unpacking_places_files_and_leaves_whole_ones_alone(tmp_path):
    archive = packed(tmp_path / "a.zip", {"a/b/x.txt": "xx", "a/y.txt": "yyy", "z.txt": "z"})
    (tmp_path / "out" / "b").mkdir(parents=True)
    (tmp_path / "out" / "b" / "x.txt").write_text(
        "XX"
    )  # its size is right: it is not written again
    (tmp_path / "out" / "y.txt").write_text("y")  # half of it
    unpack(archive, tmp_path / "out", lambda name: name[2:] if name.startswith("a/") else None)
    found = {
        str(p.relative_to(tmp_path / "out")): p.read_text()
        for p in (tmp_path / "out").rglob("*")
        if p.is_file()
    }
    assert found == {"b/x.txt": "XX", "y.txt": "yyy"}


@pytest.mark.parametrize(
    "name", ["../evil.txt", "a/../../evil.txt", "/evil.txt", "C:/evil.txt", "a\\..\\evil.txt"]
)
def test_names_that_lead_out_of_the_folder(tmp_path, name):
    archive = packed(tmp_path / "a.zip", {"good.txt": "x", name: "x"})
    with pytest.raises(UserError, match="leads out of its folder; nothing of it was unpacked"):
        unpack(archive, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil.txt").exists()


def test_links_are_refused(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="holds the link 'link'"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_damaged_zips(tmp_path):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("first.txt", "first")
        file.writestr("x.bin", b"A" * 1000)
    data = bytearray(buffer.getvalue())
    data[data.index(b"AAAA") + 500] = 66
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(
        UserError, match=r"a\.zip is damaged or no zip \(Bad CRC-32 for file 'x\.bin'"
    ):
        unpack(tmp_path / "a.zip", tmp_path / "out")
    assert not (tmp_path / "out" / "x.bin").exists()
    (tmp_path / "a.zip").write_bytes(data[:-40])
    with pytest.raises(UserError, match="is damaged or no zip"):
        unpack(tmp_path / "a.zip", tmp_path / "out")


def test_a_full_disk_is_foreseen(tmp_path, monkeypatch):
    archive = packed(tmp_path / "a.zip", {"x.txt": "x" * 100})
    monkeypatch.setattr(
        unpacking.shutil, "disk_usage", lambda path: type("usage", (), {"free": 10})()
    )
    with pytest.raises(UserError, match=r"unpacks to .* GB free"):
        unpack(archive, tmp_path / "out")
