"""Images and masks in every form that users have."""

import io
import zlib

import numpy as np
import pytest
from PIL import Image

from cfnseg.data.dataset import FileDataset, read_sample
from cfnseg.data.files import read_image, read_mask
from cfnseg.data.formats.camvid import LABELS
from cfnseg.errors import UserError

RGB = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)


def saved(tmp_path, array, name="x.png", mode=None, **options):
    Image.fromarray(array, mode=mode).save(tmp_path / name, **options)
    return tmp_path / name


def test_rgb_gray_rgba_and_16_bit(tmp_path):
    assert np.array_equal(read_image(saved(tmp_path, RGB)), RGB)
    gray = RGB[..., 0]
    assert np.array_equal(read_image(saved(tmp_path, gray)), np.repeat(gray[..., None], 3, 2))
    rgba = np.dstack([RGB, np.full((40, 56), 3, np.uint8)])
    assert np.array_equal(read_image(saved(tmp_path, rgba)), RGB)
    deep = gray.astype(np.uint16) * 257
    for name in ("d.png", "d.tif"):
        assert np.abs(read_image(saved(tmp_path, deep, name))[..., 1].astype(int) - gray).max() <= 1


@pytest.mark.parametrize("orientation, turn", [(3, 2), (6, -1), (8, 1)])
def test_exif_rotation(tmp_path, orientation, turn):
    exif = Image.Exif()
    exif[0x0112] = orientation
    smooth = np.asarray(Image.fromarray(RGB[:4, :6]).resize((56, 40), Image.BILINEAR))
    got = read_image(saved(tmp_path, smooth, "x.jpg", exif=exif, quality=98))
    assert np.abs(got.astype(int) - np.rot90(smooth, turn)).mean() < 4


@pytest.mark.parametrize("name", ["x.jpg", "x.png"])
def test_a_truncated_image_is_an_error(tmp_path, name):
    path = saved(tmp_path, RGB, name)
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(UserError, match=f"{name}: not a readable image"):
        read_image(path)


def test_no_image_and_no_file(tmp_path):
    (tmp_path / "x.jpg").write_text("<html>404</html>")
    with pytest.raises(UserError, match="not a readable image"):
        read_image(tmp_path / "x.jpg")
    with pytest.raises(UserError, match="No such file"):
        read_image(tmp_path / "nowhere.jpg")


def test_a_palette_mask_keeps_its_indices(tmp_path):
    ids = np.array([[0, 1, 200]], np.uint8)
    image = Image.fromarray(ids, mode="P")
    image.putpalette(bytes(range(256)) * 3)
    image.save(tmp_path / "m.png")
    assert np.array_equal(read_mask(tmp_path / "m.png"), ids)


def test_an_rgb_mask_is_explained(tmp_path):
    with pytest.raises(UserError, match="the mask has colours .* one id per pixel"):
        read_mask(saved(tmp_path, RGB, "m.png"))


def test_instance_ids_are_refused(tmp_path):
    with pytest.raises(UserError, match="from 26001 up to 26001.*instance ids"):
        read_mask(saved(tmp_path, np.full((4, 4), 26001, np.uint16), "m.png"))


@pytest.mark.parametrize(
    "values", [np.full((4, 4), -1, np.int32), np.full((4, 4), 1.7, np.float32)]
)
def test_ids_that_would_wrap_are_refused(tmp_path, values):
    with pytest.raises(UserError, match="expected whole numbers from 0 to 255"):
        read_mask(saved(tmp_path, values, "m.tif"))


def test_a_header_that_promises_a_gigantic_image(tmp_path):
    path = saved(tmp_path, RGB)
    data = bytearray(path.read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(UserError, match="not a readable image"):
        read_image(path)


def test_sizes_must_match(tmp_path):
    image, mask = saved(tmp_path, RGB, "i.png"), saved(tmp_path, RGB[:20, :30, 0], "m.png")
    with pytest.raises(UserError, match="the mask is 30x20, its image .* is 56x40"):
        read_sample(FileDataset([(image, mask)], LABELS), 0)


def test_a_jpeg_with_bytes_after_its_end_is_still_an_image(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "JPEG")
    (tmp_path / "x.jpg").write_bytes(buffer.getvalue() + b"appended by a camera" * 200)
    assert read_image(tmp_path / "x.jpg").shape == RGB.shape
