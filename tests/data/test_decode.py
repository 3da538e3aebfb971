"""Training, scoring and the doctor read masks as stored; ambiguous or damaged ones are refused."""

import io
import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image

from cfnseg.data.dataset import FileDataset, read_sample, read_truth
from cfnseg.data.decode import decode_image, decode_mask, stored_form
from cfnseg.data.files import few_bits, read_image
from cfnseg.data.labels import Label, LabelMap
from cfnseg.data.predictions import read_predicted_ids
from cfnseg.doctor.reading import Pair, examine, open_mask
from cfnseg.errors import UserError
from tests.data import odd_files as odd

IDS = np.kron(
    np.arange(16, dtype=np.uint8).reshape(2, 8), np.ones((3, 2), np.uint8)
)  # (6, 16), ids 0 to 15
LABELS = LabelMap(Label(i, str(i), (i, i, i)) for i in range(16))


def ids(depth):
    return IDS % (1 << min(depth, 4))


READ = {f"png gray {d}": (odd.png(ids(d), d), ids(d)) for d in (1, 2, 4, 8, 16)}
READ |= {f"png palette {d}": (odd.png(ids(d), d, 3), ids(d)) for d in (1, 2, 4, 8)}
READ |= {
    f"png gray {d} interlaced": (odd.png(ids(d), d, interlaced=True), ids(d)) for d in (1, 2, 4, 8)
}
READ |= {
    "png palette 4 interlaced": (odd.png(ids(4), 4, 3, interlaced=True), ids(4)),
    "png gray, transparent": (odd.png(ids(2), 2, more=odd.chunk(b"tRNS", b"\0\1")), ids(2)),
    "png palette, transparent": (odd.png(ids(2), 2, 3, odd.chunk(b"tRNS", b"\0\x80")), ids(2)),
    "png gamma": (odd.png(IDS, more=odd.chunk(b"gAMA", struct.pack(">I", 45455))), IDS),
    "png significant bits": (odd.png(ids(4), 4, more=odd.chunk(b"sBIT", b"\1")), ids(4)),
    "bmp gray": (odd.pillow(IDS, "BMP"), IDS),
    "bmp 1 bit": (odd.pillow(ids(1) > 0, "BMP"), ids(1)),
    "gif": (odd.pillow(IDS, "GIF"), IDS),
    "tiff lzw": (odd.pillow(IDS, "TIFF", compression="tiff_lzw"), IDS),
    "tiff group 4": (odd.pillow(ids(1) > 0, "TIFF", compression="group4"), ids(1)),
    "tiff signed 8": (odd.tiff(IDS.astype(np.int8), 8), IDS),
    **{f"tiff {d} {o}": (odd.tiff(ids(d), d, order=o), ids(d)) for d in (1, 2, 4, 8) for o in "<>"},
    **{f"tiff 16 {o}": (odd.tiff(IDS.astype(np.uint16), 16, order=o), IDS) for o in "<>"},
    **{
        f"tiff signed {d} {o}": (odd.tiff(IDS.astype(f"i{d // 8}"), d, order=o), IDS)
        for d in (16, 32)
        for o in "<>"
    },
}


@pytest.fixture
def file(tmp_path):
    def write(data):
        path = tmp_path / "m.png"
        path.write_bytes(data)
        return path

    return write


def trained(path):
    Image.new("RGB", IDS.shape[::-1]).save(path.with_name("i.png"))
    return read_sample(FileDataset([(path.with_name("i.png"), path)], LABELS), 0)[1]


def scored(path):
    return read_predicted_ids(path, LABELS, IDS.shape, few_bits([path], "predictions"))


@pytest.mark.parametrize(
    "entry",
    [trained, scored, lambda path: open_mask(path)[0]],
    ids=["train", "predictions", "doctor"],
)
@pytest.mark.parametrize("name", READ)
def test_masks_as_they_are_stored(name, entry, file):
    data, expected = READ[name]
    assert np.array_equal(entry(file(data)), expected)


HUGE = struct.pack(">IIBBBBB", 100_000, 100_000, 8, 0, 0, 0, 0)
LARGE = struct.pack(">IIBBBBB", 30_000, 30_000, 8, 0, 0, 0, 0)
WHOLE = odd.png(IDS)
REFUSED = {
    "colours": (odd.pillow(np.dstack([IDS] * 3), "PNG"), "has colours"),
    "colours 16": (odd.pillow(np.dstack([IDS] * 3 + [IDS]), "PNG"), "has colours"),
    "alpha": (odd.pillow(Image.fromarray(IDS).convert("LA"), "PNG"), "alpha channel"),
    "jpeg": (odd.pillow(IDS, "JPEG"), "is a JPEG, which may change pixel values"),
    "webp": (odd.pillow(np.dstack([IDS] * 3), "WEBP", lossless=True), "is a WEBP"),
    "jpeg 2000": (odd.pillow(IDS, "JPEG2000"), "is a JPEG2000"),
    "jpeg in tiff": (
        odd.pillow(np.zeros((16, 16), np.uint8), "TIFF", compression="jpeg"),
        "compression .jpeg. changes pixel values",
    ),
    "white is zero": (odd.tiff(IDS, 8, white=0), "white is zero"),
    "white is zero, 1 bit": (odd.tiff(ids(1), 1, white=0), "white is zero"),
    "turned tiff": (odd.tiff(IDS, 8, orientation=6), "orientation"),
    "turned png": (
        odd.png(
            IDS, more=odd.chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\1\x01\x12\0\3\0\0\0\1\0\6\0\0\0\0\0\0")
        ),
        "EXIF orientation",
    ),
    "float": (odd.tiff(IDS.astype(np.float32), 32), "float32 ids"),
    "negative": (odd.tiff(-IDS.astype(np.int16), 16), "from -15"),
    "negative 8": (odd.tiff(-IDS.astype(np.int8), 8), "from -15"),
    "deep": (odd.png(IDS.astype(np.uint16) * 1000, 16), "up to 15000"),
    "animated png": (
        odd.pillow(IDS, "PNG", save_all=True, append_images=[Image.fromarray(15 - IDS)]),
        "animation",
    ),
    "animated gif": (
        odd.pillow(IDS, "GIF", save_all=True, append_images=[Image.fromarray(15 - IDS)]),
        "2 pictures",
    ),
    "pages": (
        odd.pillow(IDS, "TIFF", save_all=True, append_images=[Image.fromarray(15 - IDS)]),
        "2 pictures",
    ),
    "empty": (b"", "the file is empty"),
    "text": (b"no mask", "not a readable mask"),
    "cut off": (WHOLE[:-20], "cut off"),
    "only a start": (WHOLE[:8], "cut off"),
    "no data": (WHOLE[:33] + odd.chunk(b"IEND", b""), "not a readable mask"),
    "checksum": (WHOLE[:45] + bytes([WHOLE[45] ^ 255]) + WHOLE[46:], "checksum"),
    "half the rows": (
        WHOLE[:33]
        + odd.chunk(b"IDAT", zlib.compress(b"".join(b"\0" + r.tobytes() for r in IDS[:3])))
        + odd.chunk(b"IEND", b""),
        "damaged or ends",
    ),
    "gigantic": (WHOLE[:8] + odd.chunk(b"IHDR", HUGE) + WHOLE[33:], "100000x100000 pixels"),
    "more than its data": (WHOLE[:8] + odd.chunk(b"IHDR", LARGE) + WHOLE[33:], "30000x30000"),
    "gigantic tiff": (
        odd.tiff(IDS, 8)
        .replace(struct.pack("<HHII", 256, 4, 1, 16), struct.pack("<HHII", 256, 4, 1, 2**31))
        .replace(struct.pack("<HHII", 257, 4, 1, 6), struct.pack("<HHII", 257, 4, 1, 2**30)),
        "pixels",
    ),
}


@pytest.mark.parametrize("entry", [trained, scored], ids=["train", "predictions"])
@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_ids_is_refused_in_one_line(name, entry, file, capfd):
    data, message = REFUSED[name]
    with pytest.raises(UserError, match=message) as error:
        entry(file(data))
    assert str(error.value).startswith(str(file(data))) and "\n" not in str(error.value)
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize("name", REFUSED)
def test_the_doctor_does_not_stumble(name, file):
    path = file(REFUSED[name][0])
    record = examine(Pair("train", "m", None, path))
    if isinstance(record.mask, str):
        assert record.mask and str(path) not in record.mask
    else:  # a form of it may be recognised: colours, or numbers that are too large
        assert (
            record.mask.colored
            or record.mask.lossy
            or record.mask.values.dtype.kind == "f"
            or abs(record.mask.values).max() > 15
            or record.mask.values.min() < 0
        )


def test_a_mask_above_pillows_limit():
    mask = np.zeros((14_000, 13_000), np.uint8)  # 182 million pixels
    mask[-1, -1] = 3
    data = cv2.imencode(".png", mask, [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()
    limit = Image.MAX_IMAGE_PIXELS
    assert decode_mask(data, "m").ids[-1, -1] == 3
    assert decode_mask(odd.pillow(mask, "TIFF"), "m").ids[-1, -1] == 3
    assert Image.MAX_IMAGE_PIXELS == limit < mask.size / 2


TWO = LabelMap(
    [
        Label(0, "a", (0, 0, 0)),
        Label(1, "b", (1, 1, 1)),
        Label(2, "c", (2, 2, 2)),
        Label(3, "d", (3, 3, 3)),
    ]
)


@pytest.mark.parametrize(
    ("values", "bits", "others", "meaning"),
    [
        ([0, 1], 1, True, "may be id 1, or 255"),
        ([0, 3], 2, True, "may be id 3, or 255"),
        ([0, 1], 1, False, [0, 1]),
        ([0, 0], 1, True, [0, 0]),
        ([0, 1, 2, 3], 2, True, [0, 1, 2, 3]),
        ([0, 1, 1, 2], 4, True, [0, 1, 1, 2]),
        ([0, 15], 4, True, "may be id 15, or 255"),
        ([0, 15], 4, False, "may be id 15, or 255"),
    ],
)
def test_few_bits_with_and_without_masks_of_eight(values, bits, others, meaning, tmp_path):
    row = np.array([values], np.uint8)
    paths = [tmp_path / f"{name}.png" for name in ("image", "few", "ordinary")]
    Image.new("RGB", row.shape[::-1]).save(paths[0])
    paths[1].write_bytes(odd.png(row, bits))
    paths[2].write_bytes(odd.png(row * 0))
    masks = [paths[1], paths[2]] if others else [paths[1]]
    data = FileDataset([(paths[0], mask) for mask in masks], TWO)
    reads = [
        lambda: read_sample(data, 0)[1],
        lambda: data.ids(0),
        lambda: read_truth(data, 0),
        lambda: read_predicted_ids(paths[1], TWO, row.shape, few_bits(masks, "predictions")),
    ]
    for read in reads:
        if isinstance(meaning, str):
            with pytest.raises(UserError, match=meaning):
                read()
        else:
            assert read().tolist() == [meaning]


def test_a_palette_has_one_meaning(tmp_path):
    (tmp_path / "p.png").write_bytes(odd.png(np.array([[0, 1]], np.uint8), 1, 3))
    (tmp_path / "o.png").write_bytes(odd.png(np.array([[0, 1]], np.uint8)))
    data = FileDataset([(tmp_path / "o.png", tmp_path / name) for name in ("o.png", "p.png")], TWO)
    assert data.ids(1).tolist() == [[0, 1]]


@pytest.mark.parametrize(
    "options",
    [{}, {"quality": 60, "optimize": True}, {"restart_marker_blocks": 16}, {"subsampling": 0}],
)
@pytest.mark.parametrize("gray", [False, True])
def test_a_jpeg_whose_middle_is_missing(options, gray, tmp_path, capfd):
    picture = odd.picture()[..., 0] if gray else odd.picture()
    data = odd.pillow(picture, "JPEG", **{"quality": 90} | options)
    path = tmp_path / "i.jpg"
    path.write_bytes(data)
    assert np.array_equal(
        read_image(path), cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
    )
    path.write_bytes(odd.without_middle(data, 4000 if "restart_marker_blocks" in options else 1000))
    with pytest.raises(
        UserError, match=r"i\.jpg: not a readable image \((its data is damaged|parts between)"
    ):
        read_image(path)
    assert isinstance(examine(Pair("train", "i", path, None)).image, str)
    path.write_bytes(data[:-2])  # some cameras leave out the end marker
    assert read_image(path).shape == (240, 320, 3)


def test_undamaged_jpegs_of_all_sizes_are_read_as_before():
    rng = np.random.default_rng(0)
    for _ in range(60):
        height, width = rng.integers(1, 90, 2)
        image = Image.fromarray(odd.picture(96, 96, int(rng.integers(99)))[:height, :width])
        data = odd.pillow(
            image if rng.integers(3) else image.convert("L"),
            "JPEG",
            quality=int(rng.integers(5, 99)),
            subsampling=int(rng.integers(3)),
            optimize=bool(rng.integers(2)),
            progressive=bool(rng.integers(2)),
            restart_marker_blocks=int(rng.integers(0, 5)),
        )
        plain = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.array_equal(decode_image(data, "x", thorough=True), plain)


def test_data_left_after_the_last_pixel_are_an_error_for_the_doctor():
    data = odd.pillow(odd.picture(), "JPEG", quality=90)
    longer = data[:-2] + data[len(data) // 2 : len(data) // 2 + 500] + data[-2:]
    assert decode_image(longer, "x").shape == (240, 320, 3)
    with pytest.raises(UserError, match="left after its last pixel"):
        decode_image(longer, "x", thorough=True)


@pytest.mark.parametrize("adobe", [True, False])
def test_cmyk(adobe):
    data = odd.pillow(Image.fromarray(odd.picture()).convert("CMYK"), "JPEG", quality=95)
    if not adobe:
        at = data.find(b"\xff\xee")
        data = data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4], "big") :]
    assert np.abs(decode_image(data, "x").astype(int) - odd.picture()).mean() < 3


@pytest.mark.parametrize(
    ("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})]
)
def test_animations_and_pages_are_no_images(kind, options):
    first, second = (Image.fromarray(odd.picture(seed=s)) for s in (0, 1))
    assert np.array_equal(decode_image(odd.pillow(first, kind, **options), "x"), odd.picture())
    with pytest.raises(UserError, match="an animation, expected one|2 pictures, expected one"):
        decode_image(odd.pillow(first, kind, save_all=True, append_images=[second], **options), "x")


def test_broken_pngs_are_no_images():
    data = odd.pillow(odd.picture(), "PNG")
    for broken in (
        odd.without_middle(data),
        data[: len(data) // 2],
        data[:60],
        data[:200] + bytes(50) + data[250:],
    ):
        with pytest.raises(UserError, match="x: not a readable image"):
            decode_image(broken, "x")


def test_a_second_picture_hides_no_missing_part():
    first, second = (Image.fromarray(odd.picture(seed=s)) for s in (0, 1))
    data = odd.pillow(first, "MPO", save_all=True, append_images=[second])
    assert np.abs(decode_image(data, "x").astype(int) - odd.picture()).mean() < 10
    at = data.find(b"\xff\xda") + 3000  # in the first picture's data
    with pytest.raises(UserError, match="damaged or ends"):
        decode_image(data[:at] + data[at + 2000 :], "x")


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_stored_form_is_what_decoding_turns(kind, orientation):
    image, stream = Image.fromarray(np.zeros((20, 50, 3), np.uint8)), io.BytesIO()
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save(stream, kind, exif=exif)
    size, turn = stored_form(stream.getvalue())
    assert (size, turn) == ((20, 50), orientation)
    shown = decode_image(stream.getvalue(), "x").shape[:2]
    assert shown == (size[::-1] if turn in (6, 8) else size)
