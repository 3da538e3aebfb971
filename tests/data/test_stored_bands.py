"""Files with all their bands: as written, or refused in one line."""

import io
import warnings

import cv2
import numpy as np
import pytest
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import cfnseg
from cfnseg.data.bands import Bands, as_picture
from cfnseg.data.files import rgb_image
from cfnseg.data.geotiff import georeference, write_placed
from cfnseg.data.stored_bands import decode_bands
from cfnseg.errors import UserError
from tests.data.band_files import GEOTAGS, noise, write_tiff

KINDS = ("uint8", "uint16", "float32")


def read(path, channels):
    return cfnseg.read_image(path, channels)


@given(
    bands=st.integers(1, 9),
    kind=st.sampled_from(KINDS),
    planar=st.sampled_from(["contig", "separate"]),
    compression=st.sampled_from([None, "zlib", "lzw"]),
    predictor=st.booleans(),
    tile=st.sampled_from([None, (16, 32)]),
    order=st.sampled_from("<>"),
)
def test_a_tiff_gives_what_was_written(
    tmp_path_factory, bands, kind, planar, compression, predictor, tile, order
):
    path = tmp_path_factory.mktemp("tiff") / "x.tif"
    image = noise((37, 41, bands), kind, bands)
    write_tiff(
        path,
        image,
        planarconfig=planar,
        compression=compression,
        predictor=predictor and compression is not None,
        tile=tile,
        byteorder=order,
    )
    found = read(path, bands)
    assert found.dtype == kind and found.flags.c_contiguous
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("bands", [1, 3, 4])
def test_a_png_gives_what_was_written(tmp_path, kind, bands):
    image, path = noise((20, 30, bands), kind), tmp_path / "x.png"
    cv2.imwrite(str(path), image[..., [2, 1, 0, 3][:bands]] if bands > 1 else image)
    found = read(path, bands)
    assert found.dtype == kind
    np.testing.assert_array_equal(found, image)


def test_other_formats_by_their_own_channels(tmp_path):
    gray = noise((20, 30), "uint8")
    for mode, name, bands in (
        ("L", "a.bmp", 1),
        ("LA", "b.png", 2),
        ("RGB", "c.webp", 3),
        ("RGBA", "d.webp", 4),
        ("P", "e.png", 3),
        ("L", "f.jpg", 1),
        ("RGB", "g.jpg", 3),
    ):
        picture = Image.fromarray(gray).convert(mode)
        if mode == "RGBA":
            picture.putalpha(Image.fromarray(gray | 1))
        picture.save(
            tmp_path / name, **({"lossless": True, "exact": True} if name.endswith("webp") else {})
        )
        found = read(tmp_path / name, bands)
        assert found.shape == (20, 30, bands) and found.dtype == np.uint8
        if not name.endswith("jpg"):
            np.testing.assert_array_equal(found[..., 0], gray)


def test_an_upright_gray_jpeg(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise((20, 30), "uint8")).save(tmp_path / "x.jpg", exif=exif)
    assert read(tmp_path / "x.jpg", 1).shape == (30, 20, 1)


@pytest.mark.parametrize("kind", ["int8", "int16", "float16"])
def test_small_types_become_float32(tmp_path, kind):
    image = noise((20, 30, 2), "float32").astype(kind)
    write_tiff(tmp_path / "x.tif", image)
    found = read(tmp_path / "x.tif", 2)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, image.astype(np.float32))


def test_nodata_becomes_nan(tmp_path):
    image = noise((20, 30, 2), "float32")
    image[3, 4, 1] = -9999
    nodata = [(42113, "s", 0, "-9999", True)]
    write_tiff(tmp_path / "x.tif", image, extratags=nodata)
    found = read(tmp_path / "x.tif", 2)
    assert np.argwhere(np.isnan(found)).tolist() == [[3, 4, 1]]
    whole = noise((20, 30, 2), "uint16")
    write_tiff(tmp_path / "y.tif", whole, extratags=nodata)
    np.testing.assert_array_equal(read(tmp_path / "y.tif", 2), whole)


def refusal(data: bytes) -> str:
    with pytest.raises(UserError) as caught:
        decode_bands(data, "x.tif")
    message = str(caught.value)
    assert message.startswith("x.tif: ") and "\n" not in message
    return message


def test_refused_in_one_line():
    def tiff(image, **settings):
        stream = io.BytesIO()
        tifffile.imwrite(stream, image, **{"photometric": "minisblack"} | settings)
        return stream.getvalue()

    cube = noise((5, 20, 30), "uint8")
    assert "5 pictures, expected one with all bands" in refusal(tiff(cube))
    wide = noise((20, 30), "float32").astype(np.float64)
    assert "pixels of type float64" in refusal(tiff(wide))
    orientation = [(274, "H", 1, 6, True)]
    assert "orientation" in refusal(tiff(cube[0], extratags=orientation))
    good = tiff(np.moveaxis(cube, 0, 2), compression="zlib", planarconfig="contig")
    assert decode_bands(good, "x.tif").shape == (20, 30, 5)
    assert "not a readable image" in refusal(b"")
    for size in range(4, len(good) - 1, 97):
        refusal(good[:size])
    plain = tiff(np.moveaxis(cube, 0, 2), planarconfig="contig")
    assert "cut off" in refusal(plain[:-100]) or "not a readable" in refusal(plain[:-100])
    broken = bytearray(good)
    broken[len(good) // 2 : len(good) // 2 + 40] = bytes(40)
    refusal(bytes(broken))


@given(data=st.binary(max_size=200), start=st.sampled_from([b"II*\0", b"MM\0*", b"II+\0\x08\0"]))
def test_garbage_is_refused_in_one_line(data, start):
    refusal(start + data)
    with pytest.raises(UserError, match="not a readable image"):
        rgb_image(start + data, "x.tif")
    assert georeference(start + data) is None or len(data) > 20


def test_another_number_of_bands_names_the_setting(tmp_path):
    write_tiff(tmp_path / "x.tif", noise((20, 30, 5), "uint16"))
    with pytest.raises(UserError, match=r"x\.tif: it has 5 bands of uint16, data\.channels is 4"):
        read(tmp_path / "x.tif", 4)
    with pytest.raises(
        UserError, match=r"5 bands of uint16; a run with --data\.channels 5 reads them"
    ):
        read(tmp_path / "x.tif", 0)
    write_tiff(tmp_path / "y.tif", noise((20, 30, 1), "float32"))
    with pytest.raises(
        UserError, match=r"1 band of float32; a run with --data\.channels 1 reads them"
    ):
        read(tmp_path / "y.tif", 0)


def test_without_tifffile_one_line_says_what_to_install(tmp_path, monkeypatch):
    write_tiff(tmp_path / "x.tif", noise((20, 30, 5), "uint16"))
    monkeypatch.setitem(__import__("sys").modules, "tifffile", None)
    with pytest.raises(UserError, match=r'pip install "cfnseg\[geo\]"'):
        read(tmp_path / "x.tif", 5)


@given(bands=st.integers(1, 7), kind=st.sampled_from(KINDS))
def test_a_picture_of_any_bands(bands, kind):
    image = noise((20, 30, bands), kind)
    if kind == "float32":
        image[0] = np.nan
    shown = as_picture(image)
    assert shown.shape == (20, 30, 3) and shown.dtype == np.uint8
    if bands < 3:
        assert (shown == shown[..., :1]).all()
    if kind == "uint8" and bands == 3:
        assert shown is image
    else:
        assert shown.min() == 0 and shown.max() > 240


def test_bands_of_a_header():
    bands = Bands("uint16", (3.6, 5.0), (1.0, 2.0))
    assert Bands.of({"type": "uint16", "mean": [3.6, 5], "std": [1, 2]}) == bands
    assert Bands.of({"mean": [0.5] * 3, "std": [0.2] * 3}) is None
    assert bands.filling.tolist() == [4, 5] and bands.filling.dtype == np.uint16
    assert str(bands) == "2 bands of uint16"


@given(bits=st.lists(st.integers(0, 255), min_size=1, max_size=12), at=st.integers(0, 2000))
def test_a_damaged_georeference_is_none_written_or_one_line(tmp_path_factory, bits, at):
    folder = tmp_path_factory.mktemp("placed")
    write_tiff(folder / "x.tif", noise((9, 9, 2), "uint8"), extratags=GEOTAGS)
    data = bytearray((folder / "x.tif").read_bytes())
    at %= len(data)
    data[at : at + len(bits)] = bytes(bits)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        place = georeference(bytes(data))
        if place is None:
            return
        ids, palette = np.zeros((9, 9), np.uint8), np.zeros((256, 3), np.uint8)
        try:
            write_placed(folder / "mask.tif", ids, palette, place)
        except UserError as error:
            assert "\n" not in str(error)
