"""An export becomes a data set that opens and trains, or nothing at all."""

import base64
import json
import signal
import subprocess
import sys
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

import cfnseg
from cfnseg.config import Config, Data, Model, Train
from cfnseg.convert import converting
from cfnseg.convert.converting import convert_export
from cfnseg.data.decode import ORIENTATION
from cfnseg.errors import UserError
from tests.conftest import ENCODER, REPO, run_tool

H, W = 64, 80


def box(x, y, w, h):
    return [x, y, x + w, y, x + w, y + h, x, y + h]


def coco(folder, count=6, names=None, size=(H, W), photographs=True):
    """A COCO export: each image has a car with a wheel inside."""
    folder.mkdir(parents=True, exist_ok=True)
    names = names or [f"clip{i // 2}_{i}.jpg" for i in range(count)]
    rng = np.random.default_rng(0)
    annotations = []
    for i, name in enumerate(names):
        if photographs:
            (folder / name).parent.mkdir(exist_ok=True)
            Image.fromarray(rng.integers(0, 255, (H, W, 3), np.uint8)).save(folder / name)
        for category, shape in ((8, box(5 + i, 10, 40, 30)), (2, box(15 + i, 20, 10, 10))):
            annotations.append(
                {"id": len(annotations), "image_id": i, "category_id": category, "iscrowd": 0}
                | {"segmentation": [shape]}
            )
    content = {
        "images": [
            {"id": i, "file_name": name, "height": size[0], "width": size[1]}
            for i, name in enumerate(names)
        ],
        "annotations": annotations,
        "categories": [{"id": 8, "name": "car"}, {"id": 2, "name": "wheel rim"}],
    }
    (folder / "export.json").write_text(json.dumps(content))
    return folder


def test_the_data_set_opens_and_trains(tmp_path):
    source, out = coco(tmp_path / "in"), tmp_path / "out"
    done = run_tool("-m", "cfnseg", "convert", "auto", source, out, "--workers", 2, "--val", 0.34)
    assert done.returncode == 0, done.stderr
    assert "format: coco" in done.stdout and "train 4 images, val 2 images" in done.stdout
    assert f"cfnseg train shapes_cfn --data.name folder --data.root {out}" in done.stdout
    assert f"cfnseg plan {out}\n" in done.stdout
    assert "begin alike up to '_'; if they are frames of videos, --group-by _ keeps" in done.stdout
    assert (out / "classes.txt").read_text().splitlines() == [
        "0 background 0 0 0",
        "1 car 128 0 0",
        "2 wheel_rim 0 128 0",
    ]
    for split in ("train", "val"):
        data = cfnseg.open_dataset("folder", str(out), split)
        for index, name in enumerate(data.names):
            i, ids = int(name.split("_")[1]), data.ids(index)
            expected = np.zeros((H, W), np.uint8)
            expected[10:40, 5 + i : 45 + i] = 1
            expected[20:30, 15 + i : 25 + i] = 2
            assert np.array_equal(ids, expected)
            copied = out / "images" / split / f"{name}.jpg"
            assert copied.read_bytes() == (source / f"{name}.jpg").read_bytes()
    config = Config(
        model=Model(encoder=ENCODER, encoder_weights=None, width=16, grid=(2, 3)),
        data=Data(name="folder", root=str(out), crop=(64, 64), workers=0),
        train=Train(epochs=1, batch=4, accelerator="cpu", pictures=0),
        name="tiny",
        runs=str(tmp_path / "runs"),
    )
    assert (cfnseg.train(config) / "best.safetensors").is_file()


def test_the_page_shows_what_was_understood(tmp_path):
    convert_export("coco", coco(tmp_path / "in", 30), tmp_path / "out")
    page = (tmp_path / "out" / "convert.html").read_text()
    assert page.count("<img") == 2 * 24 and page.count("data:image") == 2 * 24
    assert "http" not in page.replace("http-equiv", "") and len(page) < 5_000_000
    assert "wheel_rim" in page and ">30<" in page and "3,000" in page  # 30 images of 100 pixels


def test_groups_links_and_chosen_classes(tmp_path):
    source, out = coco(tmp_path / "in"), tmp_path / "out"
    lines = tmp_path / "lines.txt"
    lines.write_text("0 rest 0 0 0 = background\n4 thing 9 9 9 = car\n255 void 0 0 0 = wheel rim\n")
    convert_export("coco", source, out, 0.3, "_", lines, link=True)
    held = sorted(p.name for p in (out / "images" / "val").iterdir())
    assert len(held) == 2 and held[0].split("_")[0] == held[1].split("_")[0]
    assert (out / "images" / "val" / held[0]).stat().st_nlink == 2
    ids = cfnseg.open_dataset("folder", str(out), "val").ids(0)
    assert set(np.unique(ids)) == {0, 4, 255} and (ids == 255).sum() == 100


def test_an_image_that_is_annotated_twice(tmp_path):
    source = coco(tmp_path / "in", names=["a.jpg", "a.jpg"])
    with pytest.raises(UserError, match=r"2 of its images are .*a\.jpg"):
        convert_export("coco", source, tmp_path / "out")
    for name in "xy":
        (source / f"{name}.json").write_text('{"imagePath": "a.jpg", "shapes": []}')
    with pytest.raises(UserError, match=r"a\.jpg is annotated twice"):
        convert_export("labelme", source, tmp_path / "out")


def test_names_that_occur_twice(tmp_path):
    names = ["a/x.jpg", "b/x.jpg", "b/x.png"]
    convert_export("coco", coco(tmp_path / "in", names=names), tmp_path / "out", 0)
    found = sorted(
        p.relative_to(tmp_path / "out" / "labels" / "train").as_posix()
        for p in (tmp_path / "out" / "labels").rglob("*.png")
    )
    assert found == ["a/x.png", "b/x_jpg.png", "b/x_png.png"]
    assert len(cfnseg.open_dataset("folder", str(tmp_path / "out"), "train").names) == 3


@pytest.mark.parametrize("orientation", [1, 3, 5, 6, 7, 8])
@pytest.mark.parametrize("as_stored", [False, True])
def test_exif_turns_a_mask_that_was_drawn_on_the_stored_pixels(tmp_path, orientation, as_stored):
    """The photograph is bright exactly where the annotation is, seen as cfnseg reads it."""
    if as_stored and orientation == 3:
        pytest.skip("180 degrees keep the size: nothing says which was meant")
    source = tmp_path / "in"
    source.mkdir()
    x, y, w, h = 4, 8, 24, 16
    pixels = np.zeros((H, W), np.uint8)
    pixels[y : y + h, x : x + w] = 255
    photograph = Image.fromarray(pixels).convert("RGB")
    exif = photograph.getexif()
    exif[ORIENTATION] = orientation
    photograph.save(source / "a.jpg", exif=exif, quality=100)
    shown = cfnseg.read_image(source / "a.jpg")[..., 0] > 128
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    if not as_stored:
        x, w = int(columns[0]), len(columns)
        y, h = int(rows[0]), len(rows)
    size = (H, W) if as_stored else shown.shape
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": size[0], "width": size[1]}],
        "annotations": [
            {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [box(x, y, w, h)]}
        ],
        "categories": [{"id": 1, "name": "bright"}],
    }
    (source / "a.json").write_text(json.dumps(content))
    convert_export("coco", source, tmp_path / "out", 0)
    data = cfnseg.open_dataset("folder", str(tmp_path / "out"), "train")
    assert np.array_equal(data.image(0)[..., 0] > 128, data.ids(0) == 1)


def test_what_is_wrong_is_one_line_and_leaves_nothing(tmp_path):
    source = coco(tmp_path / "in")
    full = tmp_path / "full"
    full.mkdir()
    (full / "mine.txt").touch()
    with zipfile.ZipFile(full / "export.zip", "w") as archive:
        archive.writestr("a.json", "{}")
    good = (source / "export.json").read_text()

    def error(*arguments, **options):
        with pytest.raises(UserError) as caught:
            convert_export(*arguments, **options)
        assert "\n" not in str(caught.value)
        assert sorted(p.name for p in tmp_path.iterdir()) == ["full", "in"]
        return str(caught.value)

    assert "not empty" in error("coco", source, full)
    assert "does not exist" in error("coco", tmp_path / "none", tmp_path / "out")
    assert "did you mean coco" in error("cocoo", source, tmp_path / "out")
    assert "is no folder" in error("coco", source, tmp_path / "out", images=tmp_path / "none")
    assert "--val is 1" in error("coco", source, tmp_path / "out", 1)
    assert "is a zip; unpack it" in error("auto", full / "export.zip", tmp_path / "out")
    assert "no known export" in error("auto", full, tmp_path / "out")
    (source / "export.json").write_text(good[:-100])
    assert "export.json, line 1: no JSON" in error("coco", source, tmp_path / "out")
    (source / "export.json").write_text(good.replace(f'"height": {H}', '"height": 99', 1))
    text = error("coco", source, tmp_path / "out")
    assert "clip0_0.jpg is 80x64, its annotation 80x99" in text
    (source / "export.json").write_text(good)
    (source / "clip0_0.jpg").write_bytes(b"no image")
    assert "clip0_0.jpg: not a readable image" in error("coco", source, tmp_path / "out")
    assert (full / "mine.txt").exists()


def test_missing_photographs_are_counted_and_found_elsewhere(tmp_path, capsys):
    source = coco(tmp_path / "in")
    (tmp_path / "photos" / "deep").mkdir(parents=True)
    for path in list(source.glob("*.jpg")):
        path.rename(tmp_path / "photos" / "deep" / path.name)
    with pytest.raises(UserError, match=r"6 of 6 photographs missing: .*--images DIR"):
        convert_export("coco", source, tmp_path / "out")
    (tmp_path / "photos" / "deep" / "clip0_0.jpg").unlink()
    convert_export("coco", source, tmp_path / "out", images=tmp_path / "photos")
    assert "1 of 6 photographs missing" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "images").rglob("*.jpg"))) == 5


def test_a_photograph_inside_the_export(tmp_path):
    coco(tmp_path / "in", 1)
    data = (tmp_path / "in" / "clip0_0.jpg").read_bytes()
    content = {
        "imagePath": "gone.jpg",
        "imageData": base64.b64encode(data).decode(),
        "shapes": [{"label": "a", "points": [[0, 0], [9, 9]], "shape_type": "rectangle"}],
        "imageHeight": H,
        "imageWidth": W,
    }
    (tmp_path / "x.json").write_text(json.dumps(content))
    convert_export("labelme", tmp_path / "x.json", tmp_path / "out", link=True)
    assert (tmp_path / "out" / "images" / "train" / "gone.jpg").read_bytes() == data


def test_a_failure_or_ctrl_c_leaves_nothing(tmp_path, monkeypatch):
    source = coco(tmp_path / "in")
    for failure, seen in ((KeyboardInterrupt, KeyboardInterrupt), (OSError, UserError)):

        def page(*arguments, failure=failure):
            raise failure("no space left")

        monkeypatch.setattr(converting, "convert_page", page)
        with pytest.raises(seen):
            convert_export("coco", source, tmp_path / "out")
        assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_a_signal_while_it_draws(tmp_path):
    source = coco(tmp_path / "in", 5000, photographs=False)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 255, (H, W, 3), np.uint8)).save(source / "clip0_0.jpg")
    for i in range(1, 5000):
        (source / f"clip{i // 2}_{i}.jpg").hardlink_to(source / "clip0_0.jpg")
    process = subprocess.Popen(
        [sys.executable, "-m", "cfnseg", "convert", "coco", str(source), str(tmp_path / "out")],
        cwd=REPO,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    end = time.monotonic() + 120
    while not list(tmp_path.glob(".out.*.tmp/images")) and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130 and b"Traceback" not in errors
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_the_doctor_names_the_export(tmp_path):
    from cfnseg.doctor.scan import scan

    source = coco(tmp_path / "in")
    (finding,) = scan(Config(data=Data(name="folder", root=str(source)))).findings
    assert finding.title == f"{source} looks like a coco export"
    assert finding.fix == [f"cfnseg convert coco {source} {source}_data"]
    (source / "images").mkdir()
    (source / "labels").mkdir()  # YOLO's folders have cfnseg's names
    (finding,) = scan(Config(data=Data(name="folder", root=str(source)))).findings
    assert finding.title == f"{source} looks like a coco export"
    convert_export("coco", source, tmp_path / "out")
    assert not scan(Config(data=Data(name="folder", root=str(tmp_path / "out")))).findings
