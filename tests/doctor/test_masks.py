"""What the doctor says of the place: the grid that it proposes, and the warning of mirroring."""

import numpy as np
import pytest
from PIL import Image

from cfnseg.config import Config, Data, Model
from cfnseg.doctor import examine_data
from tests.doctor import planted as p


def write(root, names, masks, colors=False):
    """A folder data set of (n, H, W) masks for training, with images of noise."""
    rng = np.random.default_rng(0)
    palette = np.array([[40 * c, 255 - 40 * c, 7] for c in range(len(names))], np.uint8)
    rows = [f"{c} {n} {' '.join(map(str, palette[c]))}\n" for c, n in enumerate(names)]
    for kind in ("images", "labels"):
        (root / kind / "train").mkdir(parents=True)
    (root / "classes.txt").write_text("".join(rows))
    for i, mask in enumerate(masks):
        image = rng.integers(255, size=(*mask.shape, 3), dtype=np.uint8)
        Image.fromarray(image).save(root / "images" / "train" / f"{i}.png")
        Image.fromarray(palette[mask] if colors else mask).save(
            root / "labels" / "train" / f"{i}.png"
        )
    return root


def faces(count: int = 16) -> np.ndarray:
    """Skin above and hair below, two eyes, and an ignored frame."""
    masks = np.zeros((count, 48, 64), np.uint8)
    masks[:, 30:] = 1
    masks[:, 14:22, 10:24], masks[:, 14:22, 40:54] = 2, 3
    masks[:, :4] = 255
    masks[:, 24:30] = np.random.default_rng(0).integers(2, size=(count, 6, 64))
    return masks


NAMES = ["skin", "hair", "eye_a", "eye_b"]


def find(root, out, kind, model=None, **data):
    settings = {"name": "folder", "root": str(root), "val_split": "train"} | data
    config = Config(model=model or Model(), data=Data(**settings), name="test")
    report = examine_data(config, out)
    return report, next((f for f in report["findings"] if f["kind"] == kind), None)


def test_eyes_are_warned_of_while_mirroring_is_on(tmp_path):
    root = write(tmp_path / "data", NAMES, faces())
    report, warning = find(root, tmp_path, "mirrored-classes")
    assert warning["severity"] == "warning" and warning["fix"] == ["--data.flip False"]
    assert warning["text"].startswith("eye_a and eye_b lie where the other is mirrored to")
    assert report["mirrored"] == [["eye_a", "eye_b"]]
    report, warning = find(root, tmp_path, "mirrored-classes", flip=False)
    assert warning is None and report["mirrored"] == [["eye_a", "eye_b"]]


def test_names_tell_left_and_right_where_few_masks_do_not(tmp_path):
    root = write(tmp_path / "data", ["skin", "hair", "left_eye", "right_eye"], faces(4))
    report, warning = find(root, tmp_path, "mirrored-classes")
    assert "left_eye and right_eye are left and right by their names" in warning["text"]
    note = next(f for f in report["findings"] if f["kind"] == "place")
    assert report["place"] is None and "4 training masks with" in note["text"] and not note["fix"]


@pytest.mark.parametrize("colors", [False, True])
def test_rows_are_proposed_for_labels_by_row(tmp_path, colors):
    masks = faces()
    masks[masks > 1] = 0  # the ignored frame, too: it has no colour
    root = write(tmp_path / "data", NAMES[:2], masks, colors)
    report, note = find(root, tmp_path, "place")
    found = report["place"]
    assert found["proposal"] == [6, 1] and note["fix"] == ["--model.grid 6 1"]
    assert note["severity"] == "note"
    assert [g["grid"] for g in found["grids"]] == [[1, 1], [6, 1], [6, 8], [12, 16], [24, 32]]
    share = next(g for g in found["grids"] if g["grid"] == [6, 1])
    assert share["low"] <= share["share"] <= share["high"] and share["share"] > 0.5
    assert note["title"] == f"the place explains {100 * share['share']:.1f} % of the labels"
    assert report["mirrored"] == []
    page = (tmp_path / "doctor.html").read_text()
    assert "6x1 <small>fits best</small>" in page and "Most frequent class by cell" in page


def test_a_config_that_has_the_grid_or_no_use_for_it_gets_no_line(tmp_path):
    masks = faces()
    masks[masks > 1] = 0
    root = write(tmp_path / "data", NAMES[:2], masks)
    for model, words in (
        (Model(grid=(6, 1)), "The config has this grid."),
        (Model(fusion="sum"), "model.grid acts with"),
        (Model(name="segformer"), "model.grid acts with"),
    ):
        _, note = find(root, tmp_path, "place", model)
        assert not note["fix"] and words in note["text"]


def test_a_mask_that_nothing_explains_is_not_counted(tmp_path):
    masks = faces(12)
    root = write(tmp_path / "data", NAMES, masks)
    before, _ = find(root, tmp_path, "place")
    p.save(root / "labels/train/3.png", np.full((48, 64, 3), (9, 200, 77), np.uint8))
    after, _ = find(root, tmp_path, "place")
    assert (before["place"]["masks"], after["place"]["masks"]) == (12, 11)


def test_frames_are_held_out_in_the_order_of_their_numbers(tmp_path, monkeypatch):
    """Frame 10 follows frame 9, not frame 1."""
    masks = faces(20)
    for i, mask in enumerate(masks):
        mask[-1] = 0
        mask[-4:, : 3 * i] = 2
    root, seen = write(tmp_path / "data", NAMES, masks), []
    monkeypatch.setattr("cfnseg.doctor.masks.measure_place", lambda train, *_: seen.append(train))
    find(root, tmp_path, "place")
    amounts = (seen[0][:, -1] == 2).sum(1)
    assert len(amounts) == 20 and (np.diff(amounts) >= 0).all() and amounts[-1] > 20


def test_one_class_has_nothing_to_explain(tmp_path):
    root = write(tmp_path / "data", NAMES[:1], np.zeros((12, 32, 32), np.uint8))
    report, note = find(root, tmp_path, "place")
    assert note is None and report["place"] is None


def test_real_faces_and_objects(real_data, tmp_path):
    report, warning = find(real_data / "faces_lr", tmp_path, "mirrored-classes", val_split="val")
    assert "eye_left and eye_right" in warning["text"]
    shares = {tuple(g["grid"]): g["share"] for g in report["place"]["grids"]}
    assert report["place"]["proposal"] == [6, 8] and shares[6, 8] > 0.4 > 0.25 > shares[6, 1]
    report, warning = find(real_data / "voc_sample", tmp_path, "mirrored-classes", name="voc")
    assert report["place"]["proposal"] == [1, 1] and warning is None
