"""Archives for the servers, read back: layout, ids, and the score by Cityscapes' evaluator."""

import hashlib
import json
import os
import subprocess
import sys
import tarfile
import zipfile

import numpy as np
import pytest
from PIL import Image

from cfnseg.data.dataset import open_dataset, read_truth
from cfnseg.data.formats import cityscapes, voc
from cfnseg.data.predictions import find_masks, read_prediction
from cfnseg.data.submission import submission
from cfnseg.errors import UserError
from cfnseg.metrics.confusion import confusion_matrix
from tests.conftest import run_tool
from tests.data.formats.test_layouts import put

SIZE = (40, 60)
NAMES = ("2008_000006", "2008_000011", "2009_000001")


@pytest.fixture
def voc_test(tmp_path):
    """VOC2012test.tar's tree, which has no masks, and a folder of predictions, palette and gray."""
    home = tmp_path / "VOCdevkit" / "VOC2012"
    (home / "ImageSets" / "Segmentation").mkdir(parents=True)
    (home / "ImageSets" / "Segmentation" / "test.txt").write_text("\n".join(NAMES))
    rng = np.random.default_rng(0)
    (tmp_path / "masks").mkdir()
    for i, name in enumerate(NAMES):
        put(home / "JPEGImages" / f"{name}.jpg", np.zeros((*SIZE, 3), np.uint8))
        mask = rng.integers(0, 21, SIZE, dtype=np.uint8)
        if i:
            put(tmp_path / "masks" / f"{name}.png", mask)
        else:
            voc.LABELS.write(
                tmp_path / "masks" / f"{name}_mask.png", mask
            )  # as tools/infer.py writes it
    (tmp_path / "masks" / f"{NAMES[0]}_overlay.jpg").write_bytes(b"")
    return tmp_path


def test_voc(voc_test):
    out = submission("voc", voc_test / "masks", str(voc_test))
    assert out == voc_test / "masks_voc_test.tgz"
    with tarfile.open(out, "r:gz") as tar:
        assert tar.getnames() == [
            f"results/VOC2012/Segmentation/comp5_test_cls/{n}.png" for n in NAMES
        ]
        assert {(m.mtime, m.uid, m.mode) for m in tar.getmembers()} == {(0, 0, 0o644)}
        for member in tar.getmembers():
            with Image.open(tar.extractfile(member)) as image:
                assert (image.mode, image.size, image.format) == ("P", SIZE[::-1], "PNG")
                assert image.getpalette()[45:48] == [192, 128, 128]  # a person's colour
                source, _ = find_masks(voc_test / "masks", [member.name[-15:-4]])
                assert np.array_equal(np.asarray(image), np.asarray(Image.open(source[0])))
    first = hashlib.sha256(out.read_bytes()).hexdigest()
    (voc_test / "masks" / f"{NAMES[1]}.png").touch()
    assert (
        hashlib.sha256(
            submission("voc", voc_test / "masks", str(voc_test)).read_bytes()
        ).hexdigest()
        == first
    )


def test_voc_with_other_training_data(voc_test):
    out = submission(
        "voc", voc_test / "masks", str(voc_test), out=voc_test / "x.tgz", competition="comp6"
    )
    with tarfile.open(out) as tar:
        assert tar.getnames()[0] == f"results/VOC2012/Segmentation/comp6_test_cls/{NAMES[0]}.png"
    with pytest.raises(UserError, match="comp5, comp6"):
        submission("voc", voc_test / "masks", str(voc_test), competition="comp7")


@pytest.mark.parametrize(
    "fault, message",
    [
        (
            lambda f: (f / f"{NAMES[2]}.png").unlink(),
            f"no prediction for 1 of 3 images: neither {NAMES[2]}",
        ),
        (
            lambda f: put(f / "else.png", np.zeros(SIZE, np.uint8)),
            r"1 PNG files that belong to no image of test, first else\.png",
        ),
        (
            lambda f: put(f / f"{NAMES[0]}.png", np.zeros(SIZE, np.uint8)),
            "1 image has two predictions",
        ),
        (
            lambda f: put(f / f"{NAMES[1]}.png", np.zeros((30, 60), np.uint8)),
            r"1 of 3 masks .*000011\.png is 60x30, its image 60x40",
        ),
        (
            lambda f: put(f / f"{NAMES[1]}.png", np.full(SIZE, 21, np.uint8)),
            r"has the ids \[21\], the server knows 0 to 20$",
        ),
        (
            lambda f: put(f / f"{NAMES[1]}.png", np.full(SIZE, 255, np.uint8)),
            r"has the ids \[255\].*255 is no answer",
        ),
        (
            lambda f: put(f / f"{NAMES[1]}.png", np.zeros((*SIZE, 3), np.uint8)),
            r"the mask has colours \(mode RGB\), expected one id",
        ),
        (
            lambda f: put(f / f"{NAMES[1]}.png", np.full(SIZE, 300, np.uint16)),
            "uint16 ids from 300 up to 300",
        ),
        (lambda f: put(f / f"{NAMES[1]}.png", np.ones(SIZE, bool)), "may be id 1, or 255"),
        (
            lambda f: (f / f"{NAMES[1]}.png").write_bytes(b"GIF89a"),
            r"000011\.png: not a readable mask",
        ),
    ],
)
def test_what_a_server_would_refuse(voc_test, fault, message):
    fault(voc_test / "masks")
    with pytest.raises(UserError, match=message):
        submission("voc", voc_test / "masks", str(voc_test))
    assert not (voc_test / "masks_voc_test.tgz").exists()


def test_every_fault_is_counted(voc_test):
    for name in NAMES[1:]:
        put(voc_test / "masks" / f"{name}.png", np.full(SIZE, 30, np.uint8))
    with pytest.raises(
        UserError, match=rf"2 of 3 masks cannot be handed in: {NAMES[1]}.*; {NAMES[2]}"
    ):
        submission("voc", voc_test / "masks", str(voc_test))


@pytest.fixture(scope="module")
def city(tmp_path_factory):
    """A val tree with all files next to labelIds; predictions by train id, as tools/infer.py."""
    root = tmp_path_factory.mktemp("city")
    rng = np.random.default_rng(1)
    for name in ("frankfurt_000000_000294", "frankfurt_000001_000538", "munster_000000_000019"):
        place = f"val/{name.split('_')[0]}/{name}"
        truth = rng.integers(0, 34, (4, 6), dtype=np.uint8).repeat(10, 0).repeat(10, 1)
        put(root / "leftImg8bit" / f"{place}_leftImg8bit.png", np.zeros((*SIZE, 3), np.uint8))
        put(root / "gtFine" / f"{place}_gtFine_labelIds.png", truth)
        put(root / "gtFine" / f"{place}_gtFine_color.png", np.zeros((*SIZE, 3), np.uint8))
        instances = truth.astype(np.uint16)
        instances[instances > 23] *= 1000
        put(root / "gtFine" / f"{place}_gtFine_instanceIds.png", instances)
        guess = np.where(
            rng.random(SIZE) < 0.6,
            cityscapes.LABELS.encode(np.where(truth == 4, 7, truth)),
            rng.integers(0, 19, SIZE),
        )
        guess = np.where(guess == 255, 3, guess).astype(np.uint8)
        (root / "masks").mkdir(exist_ok=True)
        cityscapes.LABELS.write(root / "masks" / f"{name}_leftImg8bit_mask.png", guess)
    return root


def test_cityscapes_own_evaluator_scores_the_archive(city, tmp_path):
    pytest.importorskip("cityscapesscripts")
    out = submission("cityscapes", city / "masks", str(city), "val", tmp_path / "s.zip")
    with zipfile.ZipFile(out) as packed:
        assert packed.namelist() == [
            "frankfurt_000000_000294_labelIds.png",
            "frankfurt_000001_000538_labelIds.png",
            "munster_000000_000019_labelIds.png",
        ]
        assert {i.date_time for i in packed.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        packed.extractall(tmp_path / "results")
    with Image.open(tmp_path / "results" / "munster_000000_000019_labelIds.png") as image:
        assert image.mode == "L"
    # numpy took in1d away, which cityscapesscripts 2.3.0 calls
    program = (
        "import numpy, runpy; numpy.in1d = numpy.isin; runpy.run_module('{}', run_name='__main__')"
    )
    program = program.format("cityscapesscripts.evaluation.evalPixelLevelSemanticLabeling")
    places = {
        "CITYSCAPES_DATASET": str(city),
        "CITYSCAPES_RESULTS": str(tmp_path / "results"),
        "CITYSCAPES_EXPORT_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **places},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads((tmp_path / "resultPixelLevelSemanticLabeling.json").read_text())
    data = open_dataset("cityscapes", str(city), "val")
    files, _ = find_masks(city / "masks", data.names)
    total = sum(
        confusion_matrix(read_truth(data, i), read_prediction(f, data.labels, SIZE), 19)
        for i, f in enumerate(files)
    )
    iou = np.diag(total) / (total.sum(0) + total.sum(1) - np.diag(total))
    assert abs(iou.mean() - theirs["averageScoreClasses"]) < 1e-9
    assert 0.2 < iou.mean() < 0.8


def test_train_ids_are_explained(city, tmp_path):
    (tmp_path / "masks").mkdir()
    for path in (city / "masks").iterdir():
        train = cityscapes.LABELS.encode(np.asarray(Image.open(path)))
        put(tmp_path / "masks" / path.name, train)
    with pytest.raises(
        UserError,
        match=r"masks hold train ids \(0 to 18; here \[0, 1, 2.*the server wants label ids",
    ):
        submission("cityscapes", tmp_path / "masks", str(city), "val")
    put(tmp_path / "masks" / path.name, np.full(SIZE, 255, np.uint8))
    with pytest.raises(UserError, match="masks hold train ids"):
        submission("cityscapes", tmp_path / "masks", str(city), "val")


def test_ids_that_cityscapes_does_not_know(city, tmp_path):
    (tmp_path / "masks").mkdir()
    for path in (city / "masks").iterdir():
        put(tmp_path / "masks" / path.name, np.asarray(Image.open(path)))
    put(tmp_path / "masks" / path.name, np.full(SIZE, 34, np.uint8))
    with pytest.raises(UserError, match=r"has the ids \[34\], the server knows 0 to 33"):
        submission("cityscapes", tmp_path / "masks", str(city), "val")
    put(tmp_path / "masks" / path.name, np.full(SIZE, 0, np.uint8))
    assert (
        submission("cityscapes", tmp_path / "masks", str(city), "val").name
        == "masks_cityscapes_val.zip"
    )


def test_roads_and_buildings_alone_are_label_ids(city, tmp_path):
    (tmp_path / "masks").mkdir()
    for path in (city / "masks").iterdir():
        put(
            tmp_path / "masks" / path.name,
            np.where(np.arange(60) < 30, 7, 11).astype(np.uint8)[None].repeat(40, 0),
        )
    submission("cityscapes", tmp_path / "masks", str(city), "val")


def test_the_tool(voc_test):
    done = run_tool("tools/submission.py", "voc", voc_test / "masks", "--root", voc_test)
    assert done.returncode == 0, done.stderr
    assert "masks_voc_test.tgz: 3 masks" in done.stdout
    with pytest.raises(UserError, match=r"the list of split 'val' not found at .* has test\.txt"):
        submission("voc", voc_test / "masks", str(voc_test), "val")
    with pytest.raises(UserError, match="There are voc, cityscapes") as mistake:
        submission("kitti", voc_test / "masks", str(voc_test))
    assert mistake.value.code == 2
