"""Every frame at its own time, upright and in its colours; a file that is no clip is one line."""

import resource
import sys
from fractions import Fraction

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from cfnseg.errors import UserError
from cfnseg.inference import video
from cfnseg.inference.video import Camera, Clip, VideoWriter, is_clip
from tests.inference.clips import cut_off, opencv_frames, scene, write_clip


def read(path):
    """The frames of a clip, their times in seconds after the first, and what was lost."""
    clip = Clip(path)
    frames = list(clip.frames())
    clip.close()
    times = [(f.time - frames[0].time) * clip.time_base for f in frames]
    return [f.image for f in frames], times, clip


def rewritten(source, target):
    """The clip through `VideoWriter`."""
    clip = Clip(source)
    writer = None
    for frame in clip.frames():
        writer = writer or VideoWriter(target, clip, frame.image.shape[:2])
        writer.add(*frame)
    writer.close()
    clip.close()
    return target


@pytest.mark.parametrize("rate", [Fraction(30), Fraction(30000, 1001), Fraction(25, 2)])
def test_pixels_are_opencvs_and_times_are_exact(tmp_path, rate):
    write_clip(tmp_path / "a.mp4", scene(20)[0], rate=rate)
    images, times, clip = read(tmp_path / "a.mp4")
    assert clip.rate == rate and clip.total == 20 and not clip.lost and not clip.sound
    assert times == [k / rate for k in range(20)]
    assert np.array_equal(images, opencv_frames(tmp_path / "a.mp4"))
    images, times, clip = read(rewritten(tmp_path / "a.mp4", tmp_path / "b.mp4"))
    assert clip.rate == rate and times == [k / rate for k in range(20)]


def test_a_variable_rate_is_kept(tmp_path):
    times = np.cumsum(np.random.default_rng(0).integers(10, 90, 30)).tolist()
    write_clip(tmp_path / "a.mp4", scene(30)[0], times=times, base=Fraction(1, 1000))
    expected = [Fraction(t - times[0], 1000) for t in times]
    assert read(tmp_path / "a.mp4")[1] == expected
    assert read(rewritten(tmp_path / "a.mp4", tmp_path / "b.mp4"))[1] == expected


def test_times_that_stand_still_are_moved_on(tmp_path):
    clip = Clip(write_clip(tmp_path / "a.mp4", scene(2)[0]))
    writer = VideoWriter(tmp_path / "b.mp4", clip, (96, 128))
    for time in (7, 7, 3, 5000):
        writer.add(np.zeros((96, 128, 3), np.uint8), time)
    writer.close()
    clip.close()
    _, times, again = read(tmp_path / "b.mp4")
    assert [t / clip.time_base for t in times] == [0, 1, 2, 4993]


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_a_turned_clip_is_upright(tmp_path, turn):
    write_clip(tmp_path / "a.mp4", scene(3)[0], turn=turn)
    images = read(tmp_path / "a.mp4")[0]
    assert np.array_equal(images, opencv_frames(tmp_path / "a.mp4"))
    assert images[0].shape == ((96, 128, 3) if turn == 180 else (128, 96, 3))
    assert images[0].flags.c_contiguous
    written = read(rewritten(tmp_path / "a.mp4", tmp_path / "b.mp4"))[0]
    assert np.abs(np.int16(written) - images).mean() < 6


@pytest.mark.parametrize("size", [(97, 131), (96, 131), (16, 2), (1, 1)])
def test_odd_sides_get_a_row_or_column_more(tmp_path, size):
    clip = Clip(write_clip(tmp_path / "a.mp4", scene(2)[0]))
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    writer = VideoWriter(tmp_path / "b.mp4", clip, size)
    writer.add(image, 0)
    writer.add(image[:-1] if size[0] > 1 else image, 1)  # a frame of another size is resized
    writer.close()
    clip.close()
    even = tuple(n + n % 2 for n in size)
    assert [f.shape[:2] for f in opencv_frames(tmp_path / "b.mp4")] == [even] * 2
    stream = av.open(str(tmp_path / "b.mp4")).streams.video[0]
    assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")


def test_colours_are_right_and_named(tmp_path):
    chart = np.repeat(
        np.repeat(np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8), 16, 0),
        16,
        1,
    )
    for matrix, span in [(1, 1), (5, 1), (5, 2), (9, 1)]:
        with av.open(str(tmp_path / "a.mp4"), "w") as container:
            stream = container.add_stream("libx264", 30, {"crf": "5"})
            stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv444p"
            context = stream.codec_context
            context.colorspace, context.color_range = matrix, span
            frame = av.VideoFrame.from_ndarray(chart, "rgb24").reformat(
                format="yuv444p", dst_colorspace=matrix, dst_color_range=span
            )
            frame.pts = 0
            container.mux([*stream.encode(frame), *stream.encode()])
        assert np.abs(np.int16(read(tmp_path / "a.mp4")[0][0]) - chart).max() <= 5
        rewritten(tmp_path / "a.mp4", tmp_path / "b.mp4")
        shown = np.int16(opencv_frames(tmp_path / "b.mp4")[0])[8::16, 8::16]
        assert np.abs(shown - chart[8::16, 8::16]).max() <= 10
        context = av.open(str(tmp_path / "b.mp4")).streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (1, 1)


CONTAINERS = {
    "mp4": {},
    "mkv": {},
    "avi": {"codec": "mpeg4", "options": {"b": "4M"}},
    "ts": {},
    "mpg": {"codec": "mpeg2video", "options": {"b": "4M"}},
    "webm": {"codec": "libvpx-vp9", "options": {"cpu-used": "8", "deadline": "realtime"}},
    "flv": {},
}


@pytest.mark.parametrize("kind", CONTAINERS)
def test_whole_clips_and_clips_that_end_early(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (75, 48, 64, 3), dtype=np.uint8)
    path = write_clip(tmp_path / f"a.{kind}", noise, rate=Fraction(25), **CONTAINERS[kind])
    images, _, clip = read(path)
    assert len(images) == 75 and not clip.lost and abs(clip.total - 75) <= 2
    images, _, clip = read(cut_off(path, 0.4))
    assert 15 <= len(images) <= 35
    if kind not in ("ts", "mpg"):  # streams: nothing in them says how long they were
        seconds = len(images) / 25
        assert f"ends after {seconds:.2f} of " in clip.lost or kind == "avi"
        assert clip.lost


def test_frames_that_an_edit_hides_are_not_missed(tmp_path):
    """Phones trim a clip by a list of edits; the frames before its start stay in the file."""
    write_clip(tmp_path / "a.mp4", scene(40)[0], options={"crf": "20", "g": "50"})
    with av.open(str(tmp_path / "a.mp4")) as whole:
        settings = {"avoid_negative_ts": "disabled"}
        with av.open(str(tmp_path / "b.mp4"), "w", options=settings) as trimmed:
            stream = trimmed.add_stream_from_template(whole.streams.video[0])
            for packet in whole.demux(video=0):
                if packet.dts is not None:
                    packet.pts, packet.dts = packet.pts - 512 * 15, packet.dts - 512 * 15
                    packet.stream = stream
                    trimmed.mux(packet)
    images, _, clip = read(tmp_path / "b.mp4")
    assert clip.stream.frames == 40 and len(images) == clip.total == 25 and not clip.lost


def test_damage_within_a_clip_is_skipped_and_told(tmp_path):
    write_clip(tmp_path / "a.mp4", scene(40)[0], options={"crf": "20", "g": "10"})
    with av.open(str(tmp_path / "a.mp4")) as container:
        entry = container.streams.video[0].index_entries[21]
        place, size = entry.pos, entry.size
    with (tmp_path / "a.mp4").open("r+b") as file:
        file.seek(place)
        file.write(b"\xff" * size)
    images, _, clip = read(tmp_path / "a.mp4")
    assert len(images) == 39 and clip.lost == "1 damaged packet skipped"


def song(path):
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=44100)
        stream.layout = "mono"
        for k in range(4):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = 44100, k * 1024
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def picture(path):
    Image.new("RGB", (64, 48)).save(path, "JPEG")


@pytest.mark.parametrize(
    "content, message",
    [
        (None, "No such file or directory"),
        (b"", "not a readable video; it is of another kind, damaged, or a recording that was cut"),
        (b"hello\n" * 100, "not a readable video"),
        (bytes(100_000), "not a readable video"),
        (b"ffconcat version 1.0\nfile secret.mp4\n", "its content is no video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nsecret.mp4\n", "not a readable video"),
        (picture, "its content is no video, whatever its suffix"),
        (song, "there is no video in it"),
    ],
)
def test_what_is_no_video(tmp_path, content, message):
    write_clip(tmp_path / "secret.mp4", scene(2)[0])  # which a list of files must not open
    path = tmp_path / "a.mp4"
    if callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        Clip(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def test_a_recording_without_its_index(tmp_path):
    write_clip(tmp_path / "a.mp4", scene(20)[0], settings={})  # the index comes last
    with pytest.raises(UserError, match="cut off before its index was written"):
        Clip(cut_off(tmp_path / "a.mp4", 0.4))


@pytest.mark.skipif(sys.platform == "win32", reason="no limit of a file's size")
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path):
    clip = Clip(write_clip(tmp_path / "a.mp4", scene(2)[0]))
    noise = np.random.default_rng(0).integers(0, 256, (60, 96, 128, 3), dtype=np.uint8)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    writer = VideoWriter(tmp_path / "b.mp4", clip, (96, 128))
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))  # as if so much were left
    try:
        with pytest.raises(UserError, match=r"b\.mp4 could not be written \(File too large\)"):
            for index, image in enumerate(noise):
                writer.add(image, index * 512)
            writer.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        writer.discard()
        clip.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4"]


def test_paths_that_are_clips(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "1").touch()
    (tmp_path / "folder.mp4").mkdir()
    given = [
        "a.mp4",
        "b.MOV",
        "x/c.webm",
        "0",
        "12",
        "1",
        "-1",
        "a.jpg",
        "3.png",
        "folder.mp4",
        "²",
    ]
    assert [p for p in given if is_clip(video.Path(p))] == ["a.mp4", "b.MOV", "x/c.webm", "0", "12"]


def test_a_camera_that_is_not_there_is_one_line(capfd):
    with pytest.raises(UserError, match=r"camera 63 cannot be opened: .* \(devices: ") as error:
        Camera(63)
    assert "\n" not in str(error.value)
    assert capfd.readouterr().err == ""  # of OpenCV


class FakeCapture:
    """A camera of three frames."""

    def __init__(self, index):
        self.left = [np.full((48, 64, 3), (0, 0, 200 + k), np.uint8) for k in range(3)]

    def isOpened(self):
        return True

    def set(self, *_):
        return False

    def read(self):
        return (True, self.left.pop(0)) if self.left else (False, None)

    def release(self):
        self.left = []


def test_a_cameras_frames_have_the_time_that_passed(monkeypatch):
    monkeypatch.setattr(cv2, "VideoCapture", FakeCapture)
    clock = iter([50.0, 50.25, 50.5])
    monkeypatch.setattr(video.time, "monotonic", lambda: next(clock))
    camera = Camera(0)
    frames = list(camera.frames())
    assert [f.time * camera.time_base for f in frames] == [0, Fraction(1, 4), Fraction(1, 2)]
    assert frames[1].image[0, 0].tolist() == [201, 0, 0]  # RGB
    assert camera.lost == "it gave no more frames"


def test_without_pyav_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(
        UserError, match=r'cameras needs more packages: pip install "cfnseg\[video\]"'
    ):
        Clip(video.Path("a.mp4"))
