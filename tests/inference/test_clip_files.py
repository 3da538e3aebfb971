"""A mask a frame and a video that plays; stopped anywhere, it goes on; memory stays as it is."""

import json
import os
import re
import resource
import signal
import sys
import time
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from cfnseg.config import Model
from cfnseg.data.files import read_mask
from cfnseg.data.formats.shapes import CLASSES
from cfnseg.data.labels import Label, LabelMap
from cfnseg.drawing import overlay
from cfnseg.errors import Stopped, UserError
from cfnseg.export.onnx_file import write_onnx
from cfnseg.export.program import Program
from cfnseg.inference import clip_files
from cfnseg.inference.clip_files import Flicker
from cfnseg.inference.image_files import Extra
from cfnseg.inference.predictor import Predictor
from cfnseg.inference.settings import Inference
from cfnseg.inference.sources import infer_files
from cfnseg.models.build import build_model
from cfnseg.models.weights import load, save_weights
from cfnseg.storage import locked
from tests import processes
from tests.conftest import ENCODER
from tests.inference.clips import cut_packets, opencv_frames, scene, write_clip
from tests.inference.test_video import FakeCapture

LABELS = LabelMap([Label(10 * i + 3, name, rgb) for i, name, rgb in CLASSES])  # raw ids 3, 13, ...


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    settings = Model(encoder=ENCODER, encoder_weights=None, width=8)
    torch.manual_seed(0)
    model = build_model(settings, len(LABELS)).eval()
    model.pixel.predictors[0][-1].weight.data *= 100  # sure of its classes, which are many
    save_weights(path, model, settings, LABELS, {})
    return path


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return write_clip(path, scene(24)[0], rate=Fraction(30000, 1001))


def masks_of(folder):
    return [read_mask(p) for p in sorted(folder.glob("*.png"))]


def infer(paths, weights, out, **settings):
    return infer_files(paths, weights, out, "cpu", **settings)


def test_masks_are_the_predictors_and_the_overlay_plays(clip, weights, tmp_path, capsys):
    assert infer([clip], weights, tmp_path) == 0
    frames, predict = opencv_frames(clip), Predictor(weights, "cpu")
    expected = [predict(frame).mask for frame in frames]
    assert len({mask.tobytes() for mask in expected}) == 24 and len(np.unique(expected)) > 3
    folder = tmp_path / "clip_masks"
    assert sorted(p.name for p in folder.iterdir()) == [
        *(f"{k:06d}.png" for k in range(24)),
        "clip.json",
    ]
    assert np.array_equal(masks_of(folder), LABELS.decode(np.array(expected)))
    assert Image.open(folder / "000000.png").mode == "P"
    shown = opencv_frames(tmp_path / "clip_overlay.mp4")
    drawn = [overlay(f, m, LABELS) for f, m in zip(frames, expected)]
    assert len(shown) == 24 and np.abs(np.int16(shown) - drawn).mean() < 8
    with av.open(str(tmp_path / "clip_overlay.mp4")) as written:
        assert written.streams.video[0].average_rate == Fraction(30000, 1001)
    out = capsys.readouterr().out
    assert f"{clip}: 128 x 96 px, 29.97 frames/s, 24 frames\n" in out
    assert re.search(r"  24 frames in [\d.]+ s, [\d.]+ frames/s; the network computed \d+% of", out)
    changed = np.mean(np.diff(np.int16(expected), axis=0) != 0)
    assert f"  flicker: {changed:.2%} of the pixels change class from frame to frame\n" in out
    area = 100 * np.mean(np.array(expected) == 0)
    assert f"{LABELS.names[0]} {area:.1f} %" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["clip_masks", "clip_overlay.mp4"]
    assert json.loads((folder / "clip.json").read_text())["frames"] == 24


def test_an_exported_file_on_a_clip(clip, weights, tmp_path, capsys):
    file = tmp_path / "model.onnx"
    write_onnx(Program(load(weights).model), file, None, {"labels": LABELS.to_dict(), "score": {}})
    assert infer([clip], file, tmp_path / "file", frames=7) == 0
    assert infer([clip], file, tmp_path / "file") == 0  # goes on
    assert "the first 7 have their masks" in capsys.readouterr().out
    assert infer([clip], weights, tmp_path / "own") == 0
    own, exported = (masks_of(tmp_path / name / "clip_masks") for name in ("own", "file"))
    assert len(exported) == 24 and np.mean(np.array(own) == exported) > 0.999
    with pytest.raises(UserError, match="--smooth take a weights file"):
        infer([clip], file, tmp_path / "file", smooth=0.5)


def test_any_size_and_way_round(weights, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (2, 97, 131, 3), dtype=np.uint8)
    write_clip(tmp_path / "odd.mkv", noise, "ffv1", pixels="bgr0", options={"level": "3"})
    write_clip(tmp_path / "turned.mp4", scene(2)[0], turn=90)
    assert infer([tmp_path / "odd.mkv", tmp_path / "turned.mp4"], weights, tmp_path) == 0
    predict = Predictor(weights, "cpu")
    for name, size in (("odd", (97, 131)), ("turned", (128, 96))):
        (path,) = tmp_path.glob(f"{name}.m*")
        masks = masks_of(tmp_path / f"{name}_masks")
        assert masks[0].shape == size
        expected = [LABELS.decode(predict(frame).mask) for frame in opencv_frames(path)]
        assert np.array_equal(masks, expected)
    assert opencv_frames(tmp_path / "odd_overlay.mp4")[0].shape == (98, 132, 3)


def test_images_and_clips_in_one_command(clip, weights, tmp_path, capsys):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.fromarray(scene(1)[0][0]).save(folder / "clip.jpg")
    (folder / "clip.mp4").write_bytes(clip.read_bytes())
    (folder / "bad.mp4").write_text("no video")
    given = [folder / "bad.mp4", folder / "clip.mp4", folder, folder / "nowhere.mov"]
    assert infer(given, weights, tmp_path / "out", frames=3) == 2
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "clip.jpg_mask.png",
        "clip.jpg_overlay.jpg",
        "clip.mp4_masks",
        "clip.mp4_overlay.mp4",
    ]
    assert len(masks_of(tmp_path / "out" / "clip.mp4_masks")) == 3
    errors = [x for x in capsys.readouterr().err.splitlines() if x.startswith("error: ")]
    assert len(errors) == 2
    assert "bad.mp4: not a readable video" in errors[0]
    assert "nowhere.mov: No such file or directory" in errors[1]
    (folder / "clip.jpg").unlink()
    with pytest.raises(
        UserError, match=r"no image .*; clips are given by name, such as .*bad\.mp4"
    ):
        infer([folder], weights, tmp_path / "out")


@pytest.mark.parametrize(
    "path, settings, message",
    [
        ("a.mp4", {"extra": Extra(explanation=True)}, r"are for images; leave out a\.mp4"),
        ("a.jpg", {"smooth": 0.5}, r"--smooth and --frames are for clips .* none is given"),
        ("a.jpg", {"frames": 5}, "--smooth and --frames are for clips"),
        ("a.mp4", {"smooth": 1.0}, r"--smooth is 1\.0; expected a share, 0 up to below 1"),
        ("a.mp4", {"smooth": -0.1}, r"--smooth is -0\.1"),
        ("a.mp4", {"frames": 0}, "--frames is 0; expected 1 or more"),
    ],
)
def test_options_that_do_not_fit_are_usage(weights, tmp_path, path, settings, message):
    with pytest.raises(UserError, match=message) as error:
        infer([Path(path)], weights, tmp_path, **settings)
    assert error.value.code == 2


def test_a_clip_that_ends_early_gives_what_it_has(clip, weights, tmp_path, capsys):
    path = tmp_path / "cut.mp4"
    path.write_bytes(clip.read_bytes())
    count = len(opencv_frames(cut_packets(path, 0.6)))
    assert 2 < count < 24
    assert infer([path], weights, tmp_path / "out") == 1
    assert len(masks_of(tmp_path / "out" / "cut_masks")) == count
    assert len(opencv_frames(tmp_path / "out" / "cut_overlay.mp4")) == count
    captured = capsys.readouterr()
    (line,) = [x for x in captured.err.splitlines() if x.startswith("error: ")]
    assert re.match(rf"error: {path}: it ends after 0\.\d\d of 0\.80 s", line)
    assert f"{count} masks" in captured.out
    assert infer([path], weights, tmp_path / "few", frames=2) == 0  # which it has


def test_no_frame_at_all_leaves_nothing(clip, weights, tmp_path, capsys):
    path = tmp_path / "cut.mp4"
    with av.open(str(clip)) as container:
        start = container.streams.video[0].index_entries[0].pos
    path.write_bytes(clip.read_bytes()[: start + 20])
    assert infer([path], weights, tmp_path / "out") == 1
    assert "cut.mp4: no frame could be read" in capsys.readouterr().err
    assert list((tmp_path / "out").iterdir()) == []


def test_the_same_command_keeps_masks_and_another_does_not(clip, weights, tmp_path, capsys):
    folder = tmp_path / "clip_masks"
    assert infer([clip], weights, tmp_path, frames=10) == 0
    before = {p: p.stat().st_mtime_ns for p in folder.glob("*.png")}
    (tmp_path / "clip_overlay.mp4").unlink()
    capsys.readouterr()
    assert infer([clip], weights, tmp_path) == 0
    assert {p: p.stat().st_mtime_ns for p in before} == before
    out = capsys.readouterr().out
    assert "the first 10 have their masks" in out and "  14 frames in" in out
    assert len(opencv_frames(tmp_path / "clip_overlay.mp4")) == len(masks_of(folder)) == 24
    copy = tmp_path / "copy" / "clip.mp4"
    copy.parent.mkdir()
    copy.write_bytes(clip.read_bytes())
    assert infer([copy], weights, tmp_path) == 0  # the same clip elsewhere
    assert "the first 24 have their masks" in (out := capsys.readouterr().out)
    assert "frames in" not in out
    (folder / "000005.png").write_bytes(b"")  # as a power cut may leave it
    assert infer([clip], weights, tmp_path, frames=7) == 0
    assert "the first 5 have their masks" in capsys.readouterr().out
    flipped = Inference(flip=True)
    assert infer([clip], weights, tmp_path, inference=flipped, frames=2) == 0
    line = f"{folder}: its masks are of another settings; they are made anew"
    assert line in capsys.readouterr().out
    assert len(masks_of(folder)) == 2


def test_files_of_others_are_not_touched(clip, weights, tmp_path, capsys):
    folder = tmp_path / "clip_masks"
    folder.mkdir()
    (folder / "000000.png").write_text("a drawing")
    assert infer([clip], weights, tmp_path) == 1
    assert "has files that are no masks of a clip; give another --out" in capsys.readouterr().err
    assert [p.read_text() for p in folder.iterdir()] == ["a drawing"]
    with locked(tmp_path / "b" / "clip_masks" / ".lock", "held"):
        assert infer([clip], weights, tmp_path / "b") == 1
    assert "is being written by another command (by this process" in capsys.readouterr().err


def test_smoothing_goes_on_in_the_same_bits(clip, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(clip_files, "SAVED", 4)
    assert infer([clip], weights, tmp_path / "whole", smooth=0.6) == 0
    out = capsys.readouterr().out
    assert re.search(r"flicker: \d+\.\d\d% .* \(\d+\.\d\d% without --smooth\)", out)
    whole = masks_of(tmp_path / "whole" / "clip_masks")
    assert infer([clip], weights, tmp_path / "plain") == 0
    plain = masks_of(tmp_path / "plain" / "clip_masks")
    assert np.array_equal(whole[0], plain[0]) and not np.array_equal(whole, plain)
    # its own count without smoothing is that of a run without
    assert (
        re.search(r"flicker: (\S+) ", capsys.readouterr().out)[1]
        == (re.search(r"\((\S+) without", out)[1])
    )
    write, folder = LabelMap.write, tmp_path / "cut" / "clip_masks"

    def full(self, path, mask):
        if (folder / "000009.png").exists():
            raise OSError(28, "No space left on device")
        write(self, path, mask)

    monkeypatch.setattr(LabelMap, "write", full)
    assert infer([clip], weights, tmp_path / "cut", smooth=0.6) == 1
    assert "000010.png could not be written ([Errno 28] No space left" in capsys.readouterr().err
    assert not list((tmp_path / "cut").glob("*.mp4")) + list((tmp_path / "cut").glob(".*"))
    monkeypatch.setattr(LabelMap, "write", write)
    assert infer([clip], weights, tmp_path / "cut", smooth=0.6) == 0
    assert "the first 8 have their masks" in capsys.readouterr().out
    assert np.array_equal(masks_of(folder), whole)


def test_no_space_left(clip, weights, tmp_path, capsys):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, hard))  # masks fit, the overlay does not
    try:
        assert infer([clip], weights, tmp_path) == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("clip_overlay.mp4 could not be written (File too large)")
    assert [p.name for p in tmp_path.iterdir()] == ["clip_masks"]
    assert infer([clip], weights, tmp_path) == 0
    assert "have their masks" in capsys.readouterr().out


def tool(clip, weights, out, *more):
    words = ("--weights", weights, "--out", out, "--device", "cpu", *more)
    return processes.Tool("tools/infer.py", clip, *words)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_killed_and_run_again(weights, tmp_path, number):
    path = write_clip(tmp_path / "clip.mp4", scene(80)[0])
    folder = tmp_path / "out" / "clip_masks"
    first = tool(path, weights, tmp_path / "out")
    while len(list(folder.glob("[0-9]*.png"))) < 3:
        assert first.poll() is None, first.output()
        time.sleep(0.01)
    os.kill(first.pid, number)
    out, err = first.communicate()
    assert first.returncode == {signal.SIGKILL: -9, signal.SIGINT: 130, signal.SIGTERM: 143}[number]
    assert "Traceback" not in err
    if number != signal.SIGKILL:
        assert re.search(r"stopped; \d+ masks are there, the same command goes on after them", out)
        assert [p.name for p in (tmp_path / "out").iterdir()] == ["clip_masks"]
    assert not (tmp_path / "out" / "clip_overlay.mp4").exists()
    kept = {p: p.stat().st_mtime_ns for p in folder.glob("[0-9]*.png")}
    assert 3 <= len(kept) < 80
    again = tool(path, weights, tmp_path / "out")
    out, err = again.communicate()
    assert again.returncode == 0, err
    assert f"the first {len(kept)} have their masks" in out
    assert {p: p.stat().st_mtime_ns for p in kept} == kept
    assert infer([path], weights, tmp_path / "whole") == 0
    whole = masks_of(tmp_path / "whole" / "clip_masks")
    assert np.array_equal(masks_of(folder), whole)
    for name in ("out", "whole"):
        assert len(opencv_frames(tmp_path / name / "clip_overlay.mp4")) == 80
        assert sorted(p.name for p in (tmp_path / name).iterdir()) == [
            "clip_masks",
            "clip_overlay.mp4",
        ]


class EndlessCapture(FakeCapture):
    """A camera that SIGINT or SIGTERM ends after five frames."""

    stop: BaseException | None = None

    def read(self):
        return True, np.full((48, 64, 3), 90, np.uint8)


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), Stopped(signal.SIGTERM), None])
def test_a_camera_is_read_until_it_is_stopped(weights, tmp_path, monkeypatch, capsys, stop):
    monkeypatch.setattr(cv2, "VideoCapture", EndlessCapture)
    monkeypatch.chdir(tmp_path)
    seen = []

    def interrupted(*args, **settings):
        seen.append(1)
        if stop and len(seen) == 5:
            raise stop
        return segment(*args, **settings)

    segment = clip_files.segment
    monkeypatch.setattr(clip_files, "segment", interrupted)
    if isinstance(stop, Stopped):
        with pytest.raises(Stopped):
            infer([Path("0")], weights, tmp_path / "out")
    else:
        assert infer([Path("0")], weights, tmp_path / "out", frames=4 if not stop else None) == 0
    monkeypatch.undo()  # OpenCV reads the overlay below
    masks, video = sorted((tmp_path / "out").iterdir())
    assert re.fullmatch(r"camera0_\d{8}-\d{6}_masks", masks.name)
    assert re.fullmatch(r"camera0_\d{8}-\d{6}_overlay\.mp4", video.name)
    assert len(masks_of(masks)) == len(opencv_frames(video)) == 4
    assert "camera 0: 64 x 48 px, 30 frames/s\n" in capsys.readouterr().out


def test_a_camera_that_goes_away(weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    monkeypatch.chdir(tmp_path)
    assert infer([Path("0")], weights, tmp_path / "out") == 1
    assert capsys.readouterr().err == "error: camera 0: it gave no more frames\n"
    (masks,) = (tmp_path / "out").glob("*_masks")
    assert len(masks_of(masks)) == 3


def test_a_camera_that_is_not_there(weights, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    assert infer([Path("63")], weights, tmp_path / "out") == 1
    (line,) = capfd.readouterr().err.splitlines()
    assert line.startswith("error: camera 63 cannot be opened")


def test_flicker_by_hand():
    flicker = Flicker()
    for mask in ([[0, 0]], [[0, 1]], [[0, 1]], [[1, 0]], [[1, 0, 0]]):  # another size is left out
        flicker.add(np.array(mask))
    assert flicker.share == pytest.approx(3 / 6)


MEMORY = """
import resource, sys
from fractions import Fraction
from pathlib import Path
import numpy as np
import torch
from cfnseg.config import Model
from cfnseg.inference.clip_files import infer_clip
from cfnseg.inference.predictor import Predictor
from cfnseg.models.weights import Weights
from tests.inference.clips import write_clip
from tests.inference.stubs import Place
from tests.inference.test_clip_files import LABELS

torch.set_num_threads(1)
folder = Path(sys.argv[1])
noise = np.random.default_rng(0).integers(0, 256, (260, 340, 3), dtype=np.uint8)
frames = [noise[k % 20 :][:240, k % 20 :][:, :320] for k in range(600)]
predictor = Predictor(Weights(Place(), Model(), LABELS), "cpu")
for count in (60, 600):
    path = write_clip(folder / f"{count}.mp4", frames[:count], options={"crf": "40"})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    infer_clip(path, str(count), folder, predictor, path, smooth=0.5)
    print("PEAK", before, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in other units elsewhere")
def test_memory_does_not_grow_with_the_clip(tmp_path):
    """540 frames more would be 124 MB as images, 41 MB as masks and 58 MB as overlays."""
    script = tmp_path / "memory.py"
    script.write_text(MEMORY)
    done = processes.run(script, tmp_path, env={"PYTHONPATH": str(Path.cwd())})
    assert done.returncode == 0, done.stderr
    (_, short), (_, long) = (
        map(int, line.split()[1:]) for line in done.stdout.splitlines() if line[:4] == "PEAK"
    )
    assert (long - short) / 1024 < 30, done.stdout  # MiB
    assert len(list((tmp_path / "600_masks").glob("*.png"))) == 600
