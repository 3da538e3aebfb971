"""ADE20K's tree in miniature: names from objectInfo150.txt, raw id 0 ignored."""

import numpy as np
import pytest
from PIL import Image

from cfnseg.data.dataset import open_dataset, read_truth
from cfnseg.data.formats import voc
from cfnseg.data.formats.ade20k import read_names
from cfnseg.errors import UserError

NAMES = {1: "wall", 2: "building, edifice", 8: "bed ", 150: "flag"}


def make_ade20k(root, counts=(("training", 2), ("validation", 1))):
    """The tree of ADEChallengeData2016.zip; all 150 classes, real names for some."""
    home = root / "ADEChallengeData2016"
    home.mkdir(parents=True)
    lines = [
        f"{i}{' ' * (i == 22)}\t0.1\t10\t1\t{NAMES.get(i, f'thing {i}, other name')}"
        for i in range(1, 151)
    ]
    (home / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *lines, ""]))
    for folder, count in counts:
        for kind in ("images", "annotations"):
            (home / kind / folder).mkdir(parents=True)
        for i in range(1, count + 1):
            name = f"ADE_{folder.removesuffix('ing').removesuffix('idation')}_{i:08d}"
            Image.new("RGB", (9, 8)).save(home / "images" / folder / f"{name}.jpg")
            mask = np.full((8, 9), 150, np.uint8)
            mask[0], mask[1] = 0, 2
            Image.fromarray(mask).save(home / "annotations" / folder / f"{name}.png")
    return home


def test_the_tree(tmp_path):
    home = make_ade20k(tmp_path)
    data = open_dataset("ade20k", str(tmp_path), "train")
    assert data.names == ["ADE_train_00000001", "ADE_train_00000002"]
    assert len(data.labels) == 150
    assert [data.labels.names[i] for i in (0, 1, 7, 21, 149)] == [
        "wall",
        "building",
        "bed",
        "thing 22",
        "flag",
    ]
    assert read_truth(data, 0)[:3, 0].tolist() == [255, 1, 149]
    assert data.labels.decode(read_truth(data, 0))[:3, 0].tolist() == [0, 2, 150]
    assert data.labels.labels[149].color == voc.color(150)
    assert open_dataset("ade20k", str(home), "val").names == ["ADE_val_00000001"]


def test_what_is_missing(tmp_path):
    with pytest.raises(
        UserError,
        match=r"ADE20K not found at .*ADEChallengeData2016/annotations.*cfnseg prepare ade20k",
    ):
        open_dataset("ade20k", str(tmp_path), "train")
    home = make_ade20k(tmp_path)
    with pytest.raises(
        UserError, match=r"images of split 'test' not found at .* has training/, validation/"
    ):
        open_dataset("ade20k", str(tmp_path), "test")
    (home / "annotations" / "validation" / "ADE_val_00000001.png").unlink()
    with pytest.raises(
        UserError,
        match=r"1 of 1 images in .* have no mask .*<name>\.png, first ADE_val_00000001\.jpg",
    ):
        open_dataset("ade20k", str(tmp_path), "val")
    (home / "objectInfo150.txt").unlink()
    with pytest.raises(UserError, match=r"class names not found at .*objectInfo150\.txt"):
        open_dataset("ade20k", str(tmp_path), "train")


@pytest.mark.parametrize(
    "line, said", [("x\t0.1\twall", "line 3: expected Idx, Ratio"), ("1\t0.1\twall", "distinct")]
)
def test_names_that_do_not_fit(tmp_path, line, said):
    (tmp_path / "objectInfo150.txt").write_text(f"Idx\tRatio\tName\n1\t0.1\twall\n{line}\n")
    with pytest.raises(UserError, match=rf"objectInfo150\.txt.*{said}"):
        read_names(tmp_path / "objectInfo150.txt")
