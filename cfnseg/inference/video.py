"""Frames in and out: video files through PyAV (FFmpeg), cameras through OpenCV.

OpenCV decodes files to the same pixels at the same speed. PyAV is used because it alone keeps each
frame's own time (phones record at a variable rate), writes H.264, which every player and browser
shows, and can be kept from following a playlist to other files.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

import cv2
import numpy as np

from cfnseg.errors import UserError, first_line, lacking
from cfnseg.storage import write_atomic

# fmt: off
VIDEO_TYPES = (
    ".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts",
    ".m2ts", ".flv", ".wmv", ".ogv",
)
# fmt: on
# FFmpeg's readers for them. Others, which may sit behind any suffix, open what a file lists
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,flv,asf,ogg"
CODEC = "libx264"
QUALITY = {"crf": "20", "preset": "veryfast"}
BT709, LIMITED = 1, 1  # colours of the written file, in the numbers of ITU-T H.273
SLACK = 1.0  # seconds by which a container's duration may exceed its last frame


class Frame(NamedTuple):
    """A frame: (H, W, 3) uint8 RGB, upright, and its time in units of the source's time_base."""

    image: np.ndarray
    time: int


def is_clip(path: Path) -> bool:
    """Whether a path is a clip by its suffix, in any case, or the index of a camera; no folder."""
    return (path.suffix.lower() in VIDEO_TYPES and not path.is_dir()) or is_camera(path)


def is_camera(path: Path) -> bool:
    """Whether a path is a camera's index: digits, and no file of that name."""
    return str(path).isascii() and str(path).isdigit() and not path.exists()


def pyav() -> ModuleType:
    """The module ``av``; UserError if it is not installed."""
    try:
        import av
    except ImportError:
        raise lacking("inference on clips and cameras", "video") from None
    return av


class Clip:
    """A video file; its first video stream.

    Attributes:
        name: of the file, for messages.
        live: False: the same frames come again from a new object.
        time_base: seconds that a unit of time lasts.
        rate: frames per second, a mean where the rate varies.
        total: frames as the file's header has it; None if it has not.
        aspect: width of a pixel over its height.
        sound: whether there is sound, which is not read.
        lost: after the last frame: what could not be read, "" if nothing.

    Raises:
        UserError: no file, none that FFmpeg reads, or one without video.
    """

    live = False

    def __init__(self, path: Path) -> None:
        av = pyav()
        self.name, self.lost = str(path), ""
        allowed = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
        try:
            self.container = av.open(str(path), options=allowed)
        except av.error.ArgumentError:
            raise UserError(
                f"{path}: its content is no video, whatever its suffix; "
                f"expected one of {', '.join(FORMATS.split(',')[:2])}, matroska, webm, avi, mpeg"
            ) from None
        except av.error.InvalidDataError:
            raise UserError(
                f"{path}: not a readable video; it is of another kind, damaged, or a recording "
                "that was cut off before its index was written"
            ) from None
        except av.FFmpegError as error:
            raise UserError(f"{path}: {error.strerror or first_line(error)}") from None
        pictures = av.stream.Disposition.attached_pic  # the cover of a song
        streams = [s for s in self.container.streams.video if not s.disposition & pictures]
        if not streams:
            self.container.close()
            raise UserError(f"{path}: there is no video in it")
        self.stream = stream = streams[0]
        stream.thread_type = "AUTO"
        self.time_base = stream.time_base
        self.rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        self.sound = bool(self.container.streams.audio)
        self.aspect = stream.codec_context.sample_aspect_ratio or Fraction(1)
        self.exact = "mp4" in self.container.format.name  # its duration is that of the video
        self.seconds = None
        if stream.frames and self.container.format.name == "avi":
            self.seconds = stream.frames / self.rate  # its duration is guessed without its index
        elif stream.duration:
            self.seconds = stream.duration * stream.time_base
        elif self.container.duration:
            self.seconds = Fraction(self.container.duration, av.time_base)
        self.total = round(self.seconds * self.rate) if self.seconds else stream.frames or None

    def frames(self) -> Iterator[Frame]:
        """The frames that can be read. A damaged packet is skipped, as players do."""
        av = pyav()
        count = damaged = 0
        first = last = end = None
        reason = ""
        step = 1 / (self.rate * self.time_base)  # units from frame to frame
        packets = self.container.demux(self.stream)
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError as error:
                reason = f" ({error.strerror})"
                break
            if packet is None:
                break
            try:
                decoded = packet.decode()
            except av.FFmpegError:
                damaged += 1
                continue
            for frame in decoded:
                count += 1
                when = frame.pts
                if when is None:  # some old files have no times
                    when = 0 if last is None else last + round(step)
                last, first = when, when if first is None else first
                end = max(end or when, when + (frame.duration or step))
                image = frame.to_ndarray(format="rgb24")  # by the file's colour matrix and range
                turns = round(frame.rotation / 90) % 4
                if turns % 2 and count == 1:
                    self.aspect = 1 / self.aspect
                yield Frame(np.ascontiguousarray(np.rot90(image, turns)), when)
        if self.seconds and count:
            missing = self.seconds - (end - first) * self.time_base
            if missing > (Fraction(3, 2) / self.rate if self.exact else SLACK):
                read = float(self.seconds - missing)
                self.lost = f"it ends after {read:.2f} of {float(self.seconds):.2f} s{reason}"
        if damaged:
            skipped = f"{damaged} damaged packet{'s' * (damaged > 1)} skipped"
            self.lost = ", ".join(filter(None, [self.lost, skipped]))

    def close(self) -> None:
        """Close the file."""
        self.container.close()


class Camera:
    """A camera, by its index. Its frames come as fast as they are asked for; those between are not
    seen.

    Attributes: as `Clip`. ``live`` is True: no frame comes twice. The unit of time is 1 ms.

    Raises:
        UserError: there is no such camera, or another program has it.
    """

    live, time_base, rate, total = True, Fraction(1, 1000), Fraction(30), None
    aspect, sound = Fraction(1), False

    def __init__(self, index: int) -> None:
        self.name, self.lost = f"camera {index}", ""
        log = cv2.utils.logging
        level = log.setLogLevel(log.LOG_LEVEL_SILENT)  # its warnings of a camera that is not there
        try:
            self.capture = cv2.VideoCapture(index)
        finally:
            log.setLogLevel(level)
        if not self.capture.isOpened():
            there = ", ".join(sorted(str(p) for p in Path("/dev").glob("video*"))) or "none"
            raise UserError(
                f"camera {index} cannot be opened: it does not exist, is in use, or not permitted "
                f"(devices: {there})"
            )
        self.capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a frame that waited is an old one

    def frames(self) -> Iterator[Frame]:
        """Frames until the camera gives no more."""
        began = None
        while True:
            there, image = self.capture.read()
            if not there:
                self.lost = "it gave no more frames"
                return
            now = time.monotonic()
            began = now if began is None else began
            yield Frame(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), round(1000 * (now - began)))

    def close(self) -> None:
        """Give the camera back."""
        self.capture.release()


class VideoWriter:
    """An mp4 of H.264, 4:2:0; the file appears, whole, when it is closed.

    Each frame keeps its time; the first one begins at 0. H.264 needs even sides, so that an odd
    one gets its last row or column twice.

    Args:
        path: the file. No other program may write it meanwhile.
        source: gives time_base, rate and aspect.
        size: (H, W) of the frames; another one is resized to it.

    Raises:
        UserError: in every method, if the file cannot be written.
    """

    def __init__(self, path: Path, source: Clip | Camera, size: tuple[int, int]) -> None:
        self.av, self.path, self.size = pyav(), path, size
        self.temporary = path.with_name(f".{path.name}.part")
        self.start: int | None = None
        self.last = -1
        self.time_base = source.time_base
        with self._writing():
            # the index comes first in the file, so that a browser plays before it has all of it
            options = {"movflags": "faststart"}
            self.container = self.av.open(str(self.temporary), "w", format="mp4", options=options)
            self.stream = stream = self.container.add_stream(CODEC, source.rate, QUALITY)
            stream.height, stream.width = (n + n % 2 for n in size)
            stream.pix_fmt, context = "yuv420p", stream.codec_context
            context.time_base, context.sample_aspect_ratio = source.time_base, source.aspect
            context.colorspace = context.color_primaries = context.color_trc = BT709
            context.color_range = LIMITED

    def add(self, image: np.ndarray, when: int) -> None:
        """Add a frame, (H, W, 3) uint8 RGB, at a time in units of the source's time_base."""
        if image.shape[:2] != self.size:
            image = cv2.resize(image, self.size[::-1], interpolation=cv2.INTER_AREA)
        bottom, right = (n % 2 for n in self.size)
        if bottom or right:
            image = np.pad(image, ((0, bottom), (0, right), (0, 0)), mode="edge")
        frame = self.av.VideoFrame.from_ndarray(image, "rgb24").reformat(
            format="yuv420p", dst_colorspace=BT709, dst_color_range=LIMITED
        )
        self.start = when if self.start is None else self.start
        self.last = max(when - self.start, self.last + 1)  # a muxer takes no time twice
        frame.pts, frame.time_base = self.last, self.time_base
        with self._writing():
            self.container.mux(self.stream.encode(frame))

    def close(self) -> None:
        """Write what is left, and the index; rename the file."""
        with self._writing():
            self.container.mux(self.stream.encode())
            self.container.close()
        write_atomic(self.path, self.temporary.replace)

    def discard(self) -> None:
        """Leave no file, unless it is closed."""
        with contextlib.suppress(self.av.FFmpegError, OSError, ValueError):
            self.container.close()
        with contextlib.suppress(OSError):
            self.temporary.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (self.av.FFmpegError, OSError) as error:
            reason = getattr(error, "strerror", None) or first_line(error)
            raise UserError(f"{self.path} could not be written ({reason})") from None
