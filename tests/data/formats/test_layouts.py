"""The official trees, in miniature; what is missing is named with what is near it."""

import urllib.request
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from cfnseg.config import Data
from cfnseg.data.dataset import hold_out, open_dataset, read_sample, read_truth, shared_files
from cfnseg.errors import UserError


def put(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


IMAGE, MASK = np.zeros((8, 9, 3), np.uint8), np.zeros((8, 9), np.uint8)


@pytest.fixture
def voc(tmp_path):
    home = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("a", "b", "v"):
        put(home / "JPEGImages" / f"{name}.jpg", IMAGE)
        put(home / "SegmentationClass" / f"{name}.png", MASK + 15)
    lists = home / "ImageSets" / "Segmentation"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("a\nb\n")
    (lists / "val.txt").write_text("v\n")
    return tmp_path


def test_voc(voc):
    data = open_dataset("voc", str(voc), "train")
    assert data.names == ["a", "b"]
    assert np.unique(read_truth(data, 0)).tolist() == [15]
    assert open_dataset("voc", str(voc / "VOCdevkit" / "VOC2012"), "val").names == ["v"]


def test_voc_aug_adds_sbd_without_the_validation_images(voc):
    sbd = voc / "sbd"
    (sbd / "cls").mkdir(parents=True)
    for name in ("a", "s", "v"):
        if name == "s":
            put(voc / "VOCdevkit" / "VOC2012" / "JPEGImages" / "s.jpg", IMAGE)
        savemat(sbd / "cls" / f"{name}.mat", {"GTcls": {"Segmentation": MASK + 7}})
    (sbd / "train.txt").write_text("a\ns\n")
    (sbd / "val.txt").write_text("v\n")
    data = open_dataset("voc_aug", str(voc), "train")
    assert data.names == ["a", "b", "s"]
    assert [np.unique(read_truth(data, i)).item() for i in range(3)] == [
        15,
        15,
        7,
    ]  # VOC's own mask wins
    assert open_dataset("voc_aug", str(voc), "val").names == ["v"]


def test_voc_that_is_not_there(tmp_path):
    (tmp_path / "VOCdevkit" / "VOC2007").mkdir(parents=True)
    with pytest.raises(
        UserError, match=r"not found at .*VOC2012.* has VOC2007/.*--data\.download True"
    ):
        open_dataset("voc", str(tmp_path), "train")


def test_voc_list_that_names_missing_files(voc):
    (voc / "VOCdevkit" / "VOC2012" / "JPEGImages" / "b.jpg").unlink()
    with pytest.raises(UserError, match=r"names 2 images, 1 files are missing, first .*b\.jpg"):
        open_dataset("voc", str(voc), "train")


def test_download_that_fails_says_what_to_do(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(urllib.request, "urlopen", fail)
    with pytest.raises(
        UserError, match=r"no route to host.*By hand: get .*VOCtrainval_11-May-2012\.tar"
    ):
        open_dataset("voc", str(tmp_path), "train", download=True)
    with pytest.raises(UserError, match=r"get cityscapes with: cfnseg prepare cityscapes"):
        open_dataset("cityscapes", str(tmp_path), "train", download=True)


def test_cityscapes(tmp_path):
    for city in ("bonn", "ulm"):
        stem = f"{city}_000000_000019"
        put(tmp_path / "leftImg8bit" / "val" / city / f"{stem}_leftImg8bit.png", IMAGE)
        mask = MASK + 26
        mask[0], mask[1], mask[2] = 1, 255, 7  # ego vehicle, license plate as -1, road
        put(tmp_path / "gtFine" / "val" / city / f"{stem}_gtFine_labelIds.png", mask)
    data = open_dataset("cityscapes", str(tmp_path), "val")
    assert len(data.names) == 2
    assert read_truth(data, 1)[:4, 0].tolist() == [255, 255, 0, 13]
    (tmp_path / "gtFine" / "val" / "ulm" / "ulm_000000_000019_gtFine_labelIds.png").unlink()
    with pytest.raises(UserError, match="1 of 2 images have no labelIds mask"):
        open_dataset("cityscapes", str(tmp_path), "val")


def test_cityscapes_with_train_ids_alone_and_from_any_root(tmp_path):
    root = tmp_path / "data/cityscapes"
    put(root / "leftImg8bit/val/ulm/ulm_0_leftImg8bit.png", IMAGE)
    mask = np.full_like(MASK, 255)
    mask[0], mask[1] = 0, 13  # road, car
    put(root / "gtFine/val/ulm/ulm_0_gtFine_labelTrainIds.png", mask)
    for given in (root, root.parent, root / "leftImg8bit", root / "gtFine"):
        data = open_dataset("cityscapes", str(given), "val")
        assert read_truth(data, 0)[:3, 0].tolist() == [0, 13, 255]
    assert data.labels.names[:2] == ["road", "sidewalk"] and data.labels.names[13] == "car"
    put(root / "gtFine/val/ulm/ulm_0_gtFine_labelIds.png", MASK + 26)
    data = open_dataset("cityscapes", str(root), "val")
    assert data.labels.labels[0].id == 7  # labelIds come first


def test_folder_faults(folder_data, tmp_path):
    with pytest.raises(UserError, match="folder data set not found at .*Expected"):
        open_dataset("folder", str(tmp_path / "nowhere"), "train")
    with pytest.raises(UserError, match=r"split 'test' not found at .* has train/, val/"):
        open_dataset("folder", str(folder_data), "test")
    for kind in ("images", "labels"):
        (tmp_path / kind / "train").mkdir(parents=True)
    (tmp_path / "classes.txt").write_text("0 a 0 0 0\n")
    (tmp_path / "images" / "train" / "x.gif").write_text("")
    with pytest.raises(UserError, match=r"0 images matched .*train/\*.* has x\.gif"):
        open_dataset("folder", str(tmp_path), "train")
    put(tmp_path / "images" / "train" / "y.png", IMAGE)
    with pytest.raises(UserError, match=r"1 of 1 images .* have no mask .*first y\.png"):
        open_dataset("folder", str(tmp_path), "train")


def test_two_images_for_one_mask(folder_data, tmp_path):
    import shutil

    shutil.copytree(folder_data, tmp_path / "d")
    images = tmp_path / "d" / "images" / "val"
    shutil.copy(images / "s01.png", images / "s01.jpg")
    with pytest.raises(UserError, match=r"two images for the mask .*s01\.png"):
        open_dataset("folder", str(tmp_path / "d"), "val")


def test_unknown_data_set():
    with pytest.raises(UserError, match="voc, voc_aug, cityscapes"):
        open_dataset("vocc", "", "train")


def test_hold_out(folder_data):
    data = open_dataset("folder", str(folder_data), "train")
    rest, held = hold_out(data, Data(holdout="s1"))
    assert held.names == ["s10", "s11", "s12", "s13"]
    assert sorted(rest.names + held.names) == data.names
    assert np.array_equal(held.image(1), data.image(11))
    assert hold_out(data, Data(holdout="*3"))[1].names == ["s03", "s13"]
    assert hold_out(data, Data(holdout="s[01]1"))[1].names == ["s01", "s11"]
    for prefix in ("x", "s", "*"):
        with pytest.raises(UserError, match="first of which is s00"):
            hold_out(data, Data(holdout=prefix))


def test_splits_joined_by_plus(folder_data, voc):
    train, val = (open_dataset("folder", str(folder_data), s) for s in ("train", "val"))
    both = open_dataset("folder", str(folder_data), "train+val")
    assert both.pairs == train.pairs + val.pairs
    assert len(set(both.names)) == len(both.names)
    assert np.array_equal(both.ids(len(train.names)), val.ids(0))
    assert (shared_files(val, both), shared_files(val, train)) == (len(val.names), 0)
    assert open_dataset("voc", str(voc), "train+val").names == ["a", "b", "v"]
    with pytest.raises(UserError, match=r"more than one of the splits train\+train has .*a\.jpg"):
        open_dataset("voc", str(voc), "train+train")
    with pytest.raises(UserError, match="split 'test'"):
        open_dataset("folder", str(folder_data), "train+test")


def test_shapes_splits_share_nothing():
    train, val = open_dataset("shapes", "", "train"), open_dataset("shapes", "", "val")
    assert (len(train.names), len(val.names)) == (800, 100)
    assert not np.array_equal(train.image(0), val.image(0))


def test_real_files(real_data):
    camvid = open_dataset("camvid", str(real_data / "camvid"), "val")
    assert len(camvid.names) == 101
    image, truth = read_sample(camvid, 0)
    assert image.shape == (360, 480, 3)
    assert truth.shape == (360, 480)
    sample = open_dataset("voc", str(real_data / "voc_sample"), "trainval")
    assert len(sample.names) == 60
    for i in range(0, 60, 8):
        assert read_truth(sample, i).max() == 255  # void outlines
