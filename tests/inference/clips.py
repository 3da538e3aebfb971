"""Clips that the tests make, and OpenCV as a second reader."""

from fractions import Fraction

import av
import cv2

from cfnseg.data.formats import shapes


def scene(count, size=(96, 128), seed=3):
    """Frames of a camera that pans over a built-in scene, and their masks of raw ids."""
    height, width = size
    image, mask = shapes.render(seed, (height + count, width + 2 * count))
    cut = [(slice(i, i + height), slice(2 * i, 2 * i + width)) for i in range(count)]
    return [image[c].copy() for c in cut], [mask[c].copy() for c in cut]


def write_clip(
    path,
    frames,
    codec="libx264",
    rate=Fraction(30),
    times=None,
    base=None,
    turn=0,
    pixels="yuv420p",
    options=None,
    settings=None,
):
    """Write RGB frames; ``times`` are in units of ``base`` (default: 1 / rate)."""
    base = base or 1 / rate
    if settings is None and path.suffix == ".mp4":
        settings = {"movflags": "faststart"}  # the index first: what is cut off can be read
    with av.open(str(path), "w", options=settings or {}) as container:
        stream = container.add_stream(codec, rate, options or {"crf": "20"})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt, stream.codec_context.time_base = pixels, base
        if turn:
            stream.set_display_rotation(turn)
        for index, image in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(image, "rgb24")
            frame.pts, frame.time_base = times[index] if times else index, base
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def opencv_frames(path):
    """RGB frames as OpenCV reads them."""
    capture = cv2.VideoCapture(str(path))
    frames = []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return frames


def cut_off(path, share):
    """Keep the first ``share`` of a file."""
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    return path


def cut_packets(path, share):
    """Keep the first ``share`` of an mp4's packets, and half of the next one."""
    with av.open(str(path)) as container:
        entries = sorted((e.pos, e.size) for e in container.streams.video[0].index_entries)
    begin, size = entries[int(len(entries) * share)]
    path.write_bytes(path.read_bytes()[: begin + size // 2])
    return path
