"""Real people's folders: names, suffixes, twins, lists, encodings; each is read or named."""

import codecs
import os
import unicodedata

import numpy as np
import pytest
from PIL import Image

from cfnseg.config import Config, Data
from cfnseg.data.dataset import open_dataset, read_sample, read_truth
from cfnseg.data.download.coco_masks import draw, why_undrawn
from cfnseg.data.formats import cityscapes
from cfnseg.data.formats.ade20k import read_names
from cfnseg.data.formats.class_folders import open_images
from cfnseg.data.labels import read_classes
from cfnseg.data.predictions import find_masks
from cfnseg.data.transforms import TrainTransform
from cfnseg.doctor import examine_data
from cfnseg.errors import UserError
from cfnseg.evaluation.mask_files import evaluate_masks
from tests.conftest import run_tool
from tests.data import odd_files as odd

E_ACUTE = {form: unicodedata.normalize(form, "é") for form in ("NFC", "NFD")}


@pytest.fixture
def root(tmp_path):
    """Four images and masks of each split, classes 0 to 3."""
    base = tmp_path / "data"
    for split in ("train", "val"):
        for kind in ("images", "labels"):
            (base / kind / split).mkdir(parents=True)
        for i in range(4):
            Image.fromarray(odd.picture(32, 40, i + 10 * (split == "val"))).save(
                base / "images" / split / f"s{i}.png"
            )
            ids = (
                np.random.default_rng(i)
                .integers(0, 4, (4, 5))
                .astype(np.uint8)
                .repeat(8, 0)
                .repeat(8, 1)
            )
            Image.fromarray(ids).save(base / "labels" / split / f"s{i}.png")
    (base / "classes.txt").write_text("".join(f"{i} c{i} {i * 60} 9 {i}\n" for i in range(4)))
    return base


def opened(root, split="train"):
    return open_dataset("folder", str(root), split)


def doctored(root, fix=None):
    config = Config(data=Data(name="folder", root=str(root), crop=(32, 32)), name="t")
    return examine_data(config, root.parent / "out", fix=fix)


def kinds(report, severity="error"):
    return {f["kind"] for f in report["findings"] if f["severity"] == severity}


def test_hidden_files_are_left_out_everywhere(root):
    for folder in ("images/train", "labels/train"):
        (root / folder / "._s1.png").write_bytes(b"\0\5\x16\7")
        (root / folder / "Thumbs.db").write_bytes(b"x")
        (root / folder / "__MACOSX").mkdir()
        (root / folder / "__MACOSX" / "s1.png").write_bytes(b"x")
    assert opened(root).names == ["s0", "s1", "s2", "s3"]
    assert not kinds(doctored(root))
    found, extra = find_masks(root / "labels" / "train", ["s0", "s1", "s2", "s3"])
    assert len(found) == 4 and not extra


def test_deeper_folders_and_upper_case_are_read(root):
    for kind in ("images", "labels"):
        (root / kind / "train" / "site").mkdir()
        (root / kind / "train" / "s3.png").rename(root / kind / "train" / "site" / "s1.PNG")
    data = opened(root)
    assert data.names == ["s0", "s1", "s2", "site/s1"]
    assert read_truth(data, 3).shape == (32, 40)
    report = doctored(root, fix=root.parent / "copy")
    assert not kinds(report) and report["splits"][0]["pairs"] == 4
    assert opened(root.parent / "copy").names == data.names
    assert np.array_equal(read_truth(opened(root.parent / "copy"), 3), read_truth(data, 3))


def test_other_types_are_counted(root, capsys):
    Image.new("RGB", (4, 4)).save(root / "images" / "train" / "x.gif")
    (root / "images" / "train" / "y.heic").write_bytes(b"x")
    assert len(opened(root).names) == 4
    assert (
        "note: 2 files in" in (message := capsys.readouterr().err) and "1 .gif, 1 .heic" in message
    )
    assert "file-type" in kinds(doctored(root), "warning")


def test_unicode_forms_are_one_name(root):
    (root / "images/train/s1.png").rename(root / f"images/train/{E_ACUTE['NFD']}.png")
    (root / "labels/train/s1.png").rename(root / f"labels/train/{E_ACUTE['NFC']}.png")
    assert read_truth(opened(root), 3).shape == (32, 40)
    assert not kinds(doctored(root))
    found, extra = find_masks(root / "labels" / "train", opened(root).names)
    assert len(found) == 4 and not extra
    (root / "images/train/s2.png").rename(root / f"images/train/{E_ACUTE['NFC']}.png")  # twins
    with pytest.raises(UserError, match="two images for the mask"):
        opened(root)
    assert kinds(doctored(root)) >= {"name-collision"}


def test_two_masks_of_one_name_are_refused(root):
    (root / "labels/train/s1.PNG").write_bytes((root / "labels/train/s2.png").read_bytes())
    with pytest.raises(UserError, match=r"two files of one name, 's1\.PNG' and 's1\.png'"):
        opened(root)
    assert "mask-collision" in kinds(doctored(root))
    with pytest.raises(UserError, match=r"1 image has two predictions in .*s1\.PNG and s1\.png"):
        find_masks(root / "labels" / "train", ["s0", "s1"])


def test_predictions_of_two_images_are_refused(root):
    (root / "labels/val/a_b.png").write_bytes((root / "labels/val/s0.png").read_bytes())
    with pytest.raises(UserError, match="prediction of two images"):
        find_masks(root / "labels" / "val", ["a/b", "a_b"])


@pytest.mark.parametrize("name", ["-s1", "two\nlines", "a b", "#1", "%s{}", "ß" * 40])
def test_odd_names(name, root):
    for kind in ("images", "labels"):
        (root / kind / "train" / "s1.png").rename(root / kind / "train" / f"{name}.png")
    assert name in opened(root).names
    assert not kinds(doctored(root))


def test_a_name_that_is_no_text(root):
    try:
        (root / "images/train" / os.fsdecode(b"\xff.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("the disk takes no such name")
    with pytest.raises(UserError, match="no UTF-8"):
        opened(root)
    assert "file-name" in kinds(doctored(root))


def test_empty_files(root):
    (root / "images/train/s1.png").write_bytes(b"")
    (root / "labels/train/s2.png").write_bytes(b"")
    for i, message in (
        (1, r"s1\.png: not a readable image .the file is empty"),
        (2, r"s2\.png: not a readable mask .the file is empty"),
    ):
        with pytest.raises(UserError, match=message):
            read_sample(opened(root), i)
    assert kinds(doctored(root)) >= {"image-unreadable", "mask-unreadable"}


def test_one_bit_masks(root, capsys):
    path = root / "labels/train/s1.png"
    ids = np.asarray(Image.open(path)) % 2
    path.write_bytes(odd.png(ids, 1))
    with pytest.raises(UserError, match="may be id 1, or 255"):
        read_sample(opened(root), 1)
    assert "mask-bits" in kinds(doctored(root))
    for mask in root.glob("labels/*/*.png"):
        mask.write_bytes(odd.png(np.asarray(Image.open(mask)) % 2, 1))
    assert np.array_equal(read_truth(opened(root), 1), ids)
    assert "stored values are the ids" in capsys.readouterr().err
    assert "mask-bits" not in kinds(doctored(root))


def test_one_bit_predictions(root):
    data = opened(root, "val")
    folder = root.parent / "predicted"
    folder.mkdir()
    for i, name in enumerate(data.names):
        (folder / f"{name}.png").write_bytes(odd.png(data.ids(i) % 2, 1))
    found, _ = find_masks(folder, data.names)
    result = evaluate_masks(data, found, workers=0)
    hits = sum(int((read_truth(data, i) == read_truth(data, i) % 2).sum()) for i in range(4))
    assert result.confusion.trace() == hits
    found[0].write_bytes(odd.png(data.ids(0)))
    with pytest.raises(UserError, match="may be id 1, or 255"):
        evaluate_masks(data, found, workers=0)


def test_jpeg_masks_named_png(root):
    for path in root.glob("labels/*/*.png"):
        Image.open(path).save(path, "JPEG")
    with pytest.raises(UserError, match=r"s0\.png: the file is a JPEG"):
        read_sample(opened(root), 0)
    assert kinds(doctored(root)) >= {"mask-lossy"}


@pytest.fixture
def city(tmp_path):
    raw = np.array([label.id for label in cityscapes.LABELS.labels], np.uint8)
    for kind in ("leftImg8bit", "gtFine"):
        (tmp_path / kind / "val" / "ulm").mkdir(parents=True)
    (tmp_path / "pred").mkdir()
    for i in range(2):
        train = (
            np.random.default_rng(i)
            .integers(0, 19, (8, 16))
            .astype(np.uint8)
            .repeat(4, 0)
            .repeat(4, 1)
        )
        name = f"ulm_00000{i}_000019"
        Image.fromarray(odd.picture(32, 64, i)).save(
            tmp_path / f"leftImg8bit/val/ulm/{name}_leftImg8bit.png"
        )
        Image.fromarray(raw[train]).save(tmp_path / f"gtFine/val/ulm/{name}_gtFine_labelIds.png")
        Image.fromarray(train).save(tmp_path / f"pred/{name}_leftImg8bit.png")
    (tmp_path / "leftImg8bit/val/ulm/._x_leftImg8bit.png").write_bytes(b"x")
    return tmp_path


def test_train_ids_are_recognised(city):
    data = open_dataset("cityscapes", str(city), "val")
    found, _ = find_masks(city / "pred", data.names)
    with pytest.raises(
        UserError,
        match=r"hold train ids \(0 to 18; .*road is 7\): "
        r"4,096 pixels are right as train ids, 0 as raw ids",
    ):
        evaluate_masks(data, found, workers=0)
    for i, path in enumerate(found):
        Image.fromarray(data.labels.decode(read_truth(data, i))).save(path)
    assert evaluate_masks(data, found, workers=0).scores.miou == 1
    for path in found:  # no answer anywhere, and a single class, are bad predictions of raw ids
        Image.fromarray(np.full((32, 64), data.labels.void, np.uint8)).save(path)
    assert evaluate_masks(data, found, workers=0).confusion.sum() == 0
    for path in found:
        Image.fromarray(np.full((32, 64), 7, np.uint8)).save(path)
    assert evaluate_masks(data, found, workers=0).confusion.trace() > 0


TEXT = "0 ciel 1 2 3\n1 forêt 4 5 6\n2 void 0 0 0\n"
ENCODINGS = {
    "utf-8": TEXT.encode(),
    "mark": codecs.BOM_UTF8 + TEXT.encode(),
    "utf-16": TEXT.encode("utf-16"),
    "utf-16-be": codecs.BOM_UTF16_BE + TEXT.encode("utf-16-be"),
    "utf-32": TEXT.encode("utf-32"),
    "crlf": TEXT.replace("\n", "\r\n").encode(),
    "nfd": unicodedata.normalize("NFD", TEXT).encode(),
}


@pytest.mark.parametrize("name", ENCODINGS)
def test_classes_in_marked_encodings(name, tmp_path):
    (tmp_path / "classes.txt").write_bytes(ENCODINGS[name])
    labels = read_classes(tmp_path / "classes.txt")
    assert labels.names == ["ciel", "forêt"] and labels.ignore == (2, 255)


@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("cp1252", "line 2: not UTF-8 .byte 0xea"),
        ("utf-16-le", "zero bytes"),
        ("utf-16-be", "zero bytes"),
    ],
)
def test_classes_in_other_encodings_are_refused_and_fixed(encoding, message, root):
    text = (root / "classes.txt").read_text().replace("c1", "forêt")
    (root / "classes.txt").write_bytes(text.encode(encoding))
    with pytest.raises(UserError, match=message) as error:
        opened(root)
    assert "save the file as UTF-8" in str(error.value)
    report = doctored(root, fix=root.parent / "copy")
    assert kinds(report) == {"classes-file"}
    assert opened(root.parent / "copy").labels.names == ["c0", "forêt", "c2", "c3"]
    (root / "classes.txt").write_text(report["findings"][0]["classes_txt"], encoding="utf-8")
    assert opened(root).labels.names == ["c0", "forêt", "c2", "c3"]
    assert not kinds(doctored(root))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0 a 1 1 1\n1 a 2 2 2\n", "line 2: the classes 0 and 1 are both called a"),
        ("0 a 1 1 1\n0 b 2 2 2\n", "distinct"),
        ("-1 a 1 1 1\n", "line 1: expected"),
        ("256 a 1 1 1\n", "line 1"),
        ("1_0 a 1 1 1\n", "line 1"),
        ("٣ a 1 1 1\n", "line 1"),
        ("0 1 1 1\n", "line 1"),
        ("0 a\u200bb 1 1 1\n", "line 1"),
        ("0 two words 1 1 1\n", "line 1"),
    ],
)
def test_classes_that_are_refused(text, message, tmp_path):
    (tmp_path / "classes.txt").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_classes(tmp_path / "classes.txt")


def test_one_colour_twice_is_noted(tmp_path, capsys):
    (tmp_path / "classes.txt").write_text("0 a 1 1 1\n1 b 1 1 1\n")
    assert len(read_classes(tmp_path / "classes.txt")) == 2
    assert "a and b have the same colour" in capsys.readouterr().err


def test_ade20k_names_are_keys(tmp_path):
    (tmp_path / "info.txt").write_text(
        "Idx\tName\n1\tscreen, crt\n2\tscreen, silver screen\n3\tscreen\n"
    )
    assert read_names(tmp_path / "info.txt").names == ["screen", "silver screen", "screen 3"]


@pytest.fixture
def voc_home(tmp_path):
    home = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (home / folder).mkdir(parents=True)
    for i in range(3):
        Image.new("RGB", (20, 10)).save(home / f"JPEGImages/2007_{i}.{'JPG' if i == 2 else 'jpg'}")
        Image.new("P", (20, 10)).save(home / f"SegmentationClass/2007_{i}.png")
    return tmp_path, home / "ImageSets" / "Segmentation"


@pytest.mark.parametrize(
    "data",
    [
        codecs.BOM_UTF8 + b"2007_0\r\n2007_1\r\n2007_2\r\n\r\n",
        b"2007_0  \n\n2007_1\n2007_2",
        "2007_0\n2007_1\n2007_2\n".encode("utf-16"),
    ],
)
def test_voc_lists(data, voc_home):
    root, lists = voc_home
    (lists / "train.txt").write_bytes(data)
    assert open_dataset("voc", str(root), "train").names == ["2007_0", "2007_1", "2007_2"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2007_0  1\n2007_1 -1\n", "line 1: a list of one class"),
        ("2007_0\n2007_0\n", "line 2: expected one name"),
        ("2007_0 2007_1\n", "line 1: expected one name"),
        ("2007_9\n", "1 images, 2 files are missing"),
    ],
)
def test_voc_lists_that_are_refused(text, message, voc_home):
    root, lists = voc_home
    (lists / "train.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        open_dataset("voc", str(root), "train")


@pytest.mark.parametrize(
    ("segmentation", "why"),
    [
        ([], "a box alone"),
        (None, "a box alone"),
        ([[]], "no polygon"),
        ([[1, 1, 2, 2]], "no polygon"),
        ([[1, 1, 2, 2, 3]], "no polygon"),
        ([[1, 1, 5, 1, 5, float("nan")]], "no polygon"),
        ({"size": [9, 9], "counts": [81]}, "another size"),
        ({"size": [8, 10], "counts": [50, 10]}, "do not fill"),
        ({"size": [8, 10], "counts": [90, -10]}, "do not fill"),
        ([[], [1, 1, 5, 1, 5, 5]], ""),
        ({"size": [8, 10], "counts": [70, 10]}, ""),
    ],
)
def test_coco_objects_without_an_area(segmentation, why, tmp_path):
    annotation = {"id": 1, "category_id": 1, "segmentation": segmentation, "iscrowd": 0}
    message = why_undrawn(annotation, 8, 10)
    assert why in message if why else not message
    assert draw([annotation], (8, 10), {1: 1}, 0).any() == (not why)


@pytest.mark.parametrize("size", [(1, 60), (60, 1), (1, 1), (2, 3)])
def test_tiny_images_train(size, root):
    transform = TrainTransform(Data(crop=(32, 32), scale=(0.25, 0.5)))
    for seed in range(5):
        sample = transform(
            odd.picture(64, 64)[: size[0], : size[1]], np.zeros(size, np.uint8), "x", seed
        )
        assert (
            sample.image.shape == (3, 32, 32)
            and sample.mask.shape == (32, 32)
            and (sample.mask == 0).any()
        )
    Image.new("RGB", size[::-1]).save(root / "images/train/s1.png")
    Image.new("L", size[::-1]).save(root / "labels/train/s1.png")
    finding = next(f for f in doctored(root)["findings"] if f["kind"] == "image-tiny")
    assert finding["files"] == ["images/train/s1.png"]


def test_image_folders_leave_hidden_files_out(tmp_path):
    for name in ("train/cat/a.png", "train/dog/b.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    (tmp_path / "train/cat/__MACOSX").mkdir()
    (tmp_path / "train/cat/__MACOSX/a.png").write_bytes(b"x")
    (tmp_path / "train/dog/loop").symlink_to(tmp_path / "train")
    assert open_images("image_folder", str(tmp_path), "train").names == ["cat/a.png", "dog/b.png"]


def test_a_closed_pipe_is_no_traceback(root):
    done = run_tool(
        "-c",
        "import os\nr, w = os.pipe()\nos.dup2(w, 1)\nos.close(r)\n"
        "from cfnseg.streams import run_tool\nrun_tool(lambda: print('x' * 100000, flush=True))",
    )
    assert done.returncode == 0 and "Traceback" not in done.stderr  # it goes on writing its files
