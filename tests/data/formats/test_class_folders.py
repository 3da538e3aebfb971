"""Classification data: class folders, zips, CIFAR's files, and what is wrong with them."""

import pickle
import zipfile

import cv2
import numpy as np
import pytest
from torchvision.datasets import CIFAR10

from cfnseg.config import Data
from cfnseg.data.formats.cifar import CIFAR10_CLASSES
from cfnseg.data.formats.class_folders import hold_out_images, open_images
from cfnseg.data.loader import StepBatches, labelled_images, train_batches
from cfnseg.data.transforms import ImageTransform
from cfnseg.errors import UserError


def png(value: int, size: tuple[int, int] = (32, 32)) -> bytes:
    return cv2.imencode(".png", np.full((*size, 3), value, np.uint8))[1].tobytes()


@pytest.fixture
def folder(tmp_path):
    """Four images of each CIFAR class; the pixel value says which."""
    for c, name in enumerate(CIFAR10_CLASSES):
        (tmp_path / "d" / "train" / name).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "d" / "train" / name / f"{i:04d}.png").write_bytes(png(10 * c + i))
    return tmp_path / "d"


@pytest.fixture
def archive(folder):
    path = folder.parent / "d.zip"
    with zipfile.ZipFile(path, "w") as file:
        for p in sorted(folder.rglob("*.png")):
            file.write(p, p.relative_to(folder))
        file.writestr("__MACOSX/train/airplane/._0000.png", b"x")
        file.writestr("train/airplane/.DS_Store", b"x")
    return path


@pytest.mark.parametrize("name", ["cifar10", "image_folder"])
def test_folder_and_zip_are_the_same(folder, archive, name):
    one, other = open_images(name, str(folder), "train"), open_images(name, str(archive), "train")
    assert one.names == other.names and one.labels.names == other.labels.names == CIFAR10_CLASSES
    assert (one.targets == other.targets).all() and len(one.names) == 40
    for i in (0, 5, 39):
        image, target = one.image(i), one.targets[i]
        assert (image == 10 * target + i % 4).all() and (other.image(i) == image).all()


def test_zip_read_by_several_processes(archive):
    images = open_images("image_folder", str(archive), "train")
    got = {
        int(i): int(x[0, 0, 0])
        for index, batch in labelled_images(
            images, ImageTransform(Data(crop=(32, 32)), False), 3, workers=2
        )
        for i, x in zip(index, batch)
    }
    assert got == {i: 10 * int(images.targets[i]) + i % 4 for i in range(40)}


def test_shares_of_processes_cover_every_image_once(archive):
    images = open_images("image_folder", str(archive), "train")
    transform = ImageTransform(Data(crop=(32, 32)), False)
    seen = [
        int(i)
        for rank in range(3)
        for index, _ in labelled_images(images, transform, 7, 0, rank, 3)
        for i in index
    ]
    assert sorted(seen) == list(range(40))


def test_missing_class(folder):
    for p in (folder / "train" / "frog").iterdir():
        p.unlink()
    (folder / "train" / "frog").rmdir()
    with pytest.raises(UserError, match=r"lacks the class frog; use --data.name image_folder"):
        open_images("cifar10", str(folder), "train")
    assert len(open_images("image_folder", str(folder), "train").labels) == 9


def test_class_of_another_data_set(folder):
    (folder / "train" / "frog").rename(folder / "train" / "toad")
    with pytest.raises(UserError, match="lacks the class frog and has toad"):
        open_images("cifar10", str(folder), "train")


def test_zip_with_a_file_that_is_no_image_by_name(archive):
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("train/cat/readme.txt", b"hello")
    with pytest.raises(UserError, match=r"d.zip, train/cat/readme.txt: no image \(1 such files\)"):
        open_images("cifar10", str(archive), "train")


@pytest.mark.parametrize("workers", [0, 2])
def test_zip_with_a_file_that_is_no_image_by_content(archive, workers):
    with zipfile.ZipFile(archive, "a") as file:
        file.writestr("train/cat/0009.png", b"hello")
    images = open_images("image_folder", str(archive), "train")
    with pytest.raises(UserError, match=r"d.zip, train/cat/0009.png: not a readable image"):
        list(labelled_images(images, ImageTransform(Data(crop=(32, 32)), False), 8, workers))
    order = StepBatches(len(images.names), 41, 0, 0, 1)
    with pytest.raises(UserError, match=r"0009.png: not a readable image"):
        next(train_batches(images, ImageTransform(Data(crop=(32, 32)), True), order, workers))
    with pytest.raises(UserError, match=r"0009.png"):
        open_images("cifar10", str(archive), "train")


def test_a_class_keeps_its_id_where_another_split_lacks_some(folder):
    for name in ("cat", "truck"):
        (folder / "test" / name).mkdir(parents=True)
        (folder / "test" / name / "0.png").write_bytes(png(1))
    train = open_images("image_folder", str(folder), "train")
    test = open_images("image_folder", str(folder), "test", classes=train.labels.names)
    assert test.targets.tolist() == [3, 9] and test.labels.names == train.labels.names
    with pytest.raises(
        UserError, match="split train: airplane, automobile, .* is not among the 2 classes"
    ):
        open_images("image_folder", str(folder), "train", classes=["cat", "truck"])


def test_hidden_folders_links_and_deeper_folders(folder, tmp_path):
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / ".ipynb_checkpoints" / "0.png").write_bytes(png(1))
    (folder / "train" / "cat" / "more").mkdir()
    (folder / "train" / "cat" / "more" / "0001.png").write_bytes(png(1))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "a.png").write_bytes(png(2))
    (folder / "train" / "zebra").symlink_to(tmp_path / "elsewhere")
    images = open_images("image_folder", str(folder), "train")
    assert (
        images.labels.names == [*CIFAR10_CLASSES, "zebra"]
        and len(images.names) == len(set(images.names)) == 42
    )
    assert "cat/more/0001.png" in images.names


def test_corrupt_member_of_a_zip(archive):
    with zipfile.ZipFile(archive, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("train/cat/0099.png", np.random.default_rng(0).bytes(5000) + bytes(5000))
        start = file.getinfo("train/cat/0099.png").header_offset
    data = bytearray(archive.read_bytes())
    data[start + 100 : start + 2000] = b"\xff" * 1900
    archive.write_bytes(data)
    with pytest.raises(UserError, match=r"d.zip, train/cat/0099.png"):
        list(
            labelled_images(
                open_images("image_folder", str(archive), "train"),
                ImageTransform(Data(crop=(32, 32)), False),
                8,
                1,
            )
        )


def test_cifar_of_another_size(folder):
    (folder / "train" / "dog" / "0001.png").write_bytes(png(1, (40, 32)))
    with pytest.raises(UserError, match=r"dog/0001.png is 32x40, CIFAR's images are 32x32"):
        open_images("cifar10", str(folder), "train")


def test_loaders_need_no_fork(folder, archive):
    for path in (folder, archive):
        rest, _ = hold_out_images(open_images("image_folder", str(path), "train"), "10")
        assert (pickle.loads(pickle.dumps(rest)).image(2) == rest.image(2)).all()


def test_neither_folder_nor_zip(tmp_path):
    (tmp_path / "x.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match="no folder and no readable zip"):
        open_images("image_folder", str(tmp_path / "x.zip"), "train")
    with pytest.raises(UserError, match=r"cifar10 not found at .*--data.download True"):
        open_images("cifar10", str(tmp_path / "none"), "train")


def test_missing_split_and_names(folder):
    with pytest.raises(UserError, match="0 images matched val/<class>/<image>.*it has train"):
        open_images("image_folder", str(folder), "val")
    with pytest.raises(UserError, match="'camvid' has no image labels"):
        open_images("camvid", str(folder), "train")


def test_files_of_torchvision(tmp_path, monkeypatch):
    """Miniature files in CIFAR-10's official layout: only the right checksums open them."""
    base = tmp_path / CIFAR10.base_folder
    base.mkdir()
    rng = np.random.default_rng(0)
    for batch in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        content = {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8), "labels": [0, 3, 9, 5]}
        (base / batch).write_bytes(pickle.dumps(content))
    (base / "batches.meta").write_bytes(pickle.dumps({"label_names": CIFAR10_CLASSES}))
    with pytest.raises(UserError, match="Dataset not found or corrupted.*--data.download True"):
        open_images("cifar10", str(tmp_path), "train")
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *a: True)
    images = open_images("cifar10", str(tmp_path), "train")
    assert (
        len(images.names) == 20
        and images.labels.names == CIFAR10_CLASSES
        and len(set(images.names)) == 20
    )
    data = pickle.loads((base / "data_batch_1").read_bytes())["data"]
    assert (
        images.image(1) == data[1].reshape(3, 32, 32).transpose(1, 2, 0)
    ).all() and images.targets[1] == 3
    assert len(open_images("cifar10", str(tmp_path), "test").names) == 4
    with pytest.raises(UserError, match="no split 'val'"):
        open_images("cifar10", str(tmp_path), "val")


def test_hold_out_takes_the_same_share_of_every_class(folder):
    images = open_images("cifar10", str(folder), "train")
    rest, held = hold_out_images(images, "20")
    assert (np.bincount(held.targets) == 2).all() and (np.bincount(rest.targets) == 2).all()
    assert not set(rest.names) & set(held.names) and sorted(rest.names + held.names) == sorted(
        images.names
    )
    assert hold_out_images(images, "20")[1].names == held.names
    assert (held.image(3) // 10 == held.targets[3]).all()
    for count in ("0006R0", "9", "40"):
        with pytest.raises(UserError, match=rf"data.holdout '?{count}"):
            hold_out_images(images, count)


def test_images_of_the_crops_size_are_left_alone_without_augmentation():
    settings = Data(crop=(32, 32), scale=(1.0, 1.0), flip=False, photometric=0.0)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for train in (True, False):
        sample = ImageTransform(settings, train)(image, 7, "a", 3)
        assert (sample.image == image.transpose(2, 0, 1)).all() and sample.target == 7


@pytest.mark.parametrize("size", [(20, 50), (64, 33), (300, 200)])
@pytest.mark.parametrize("scale", [(1.0, 1.0), (0.2, 1.0)])
def test_any_size_becomes_the_crop_and_a_seed_gives_one_sample(size, scale):
    settings = Data(crop=(32, 48), scale=scale, flip=True, photometric=0.5)
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    make = ImageTransform(settings, True)
    assert make(image, 0, "a", 5).image.shape == (3, 32, 48)
    assert (make(image, 0, "a", 5).image == make(image, 0, "a", 5).image).all()
    assert any(
        (make(image, 0, "a", 5).image != make(image, 0, "a", s).image).any() for s in (6, 7, 8)
    )
    assert ImageTransform(settings, False)(image, 0, "a").image.shape == (3, 32, 48)


def test_real_cifar(real_data):
    path = real_data / "cifar10_train.zip"
    if not path.exists():
        pytest.skip("no cifar10_train.zip")
    with zipfile.ZipFile(path) as file:
        names = file.namelist()
    assert sum(n.endswith(".jpg") for n in names) == 50_000
    images = open_images("image_folder", str(path), "train")
    assert images.labels.names == CIFAR10_CLASSES and (np.bincount(images.targets) == 5000).all()
    assert images.image(123).shape == (32, 32, 3)
