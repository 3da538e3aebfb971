"""Settings of windows and views: what is refused, and which windows an image gets."""

import pytest

from cfnseg.errors import UserError
from cfnseg.inference.settings import PLAIN, Inference


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("window", (31, 64)),
        ("window", (64, 0)),
        ("window", (-64, 64)),
        ("overlap", 1.0),
        ("overlap", 128),
        ("overlap", -0.1),
        ("overlap", float("nan")),
        ("batch", 0),
        ("scales", ()),
        ("scales", (1.0, 0.0)),
        ("scales", (-1.0,)),
        ("max_pixels", 0),
    ],
)
def test_what_no_image_could_be_seen_with_is_refused(setting, value):
    with pytest.raises(UserError, match=f"--{setting.replace('_', '-')} is .*expected") as caught:
        Inference(**{setting: value})
    assert caught.value.code == 2


@pytest.mark.parametrize(
    ("inference", "size", "test_scale", "expected"),
    [
        (PLAIN, (1024, 2048), 1.0, (1024, 2048)),
        (PLAIN, (1025, 2048), 1.0, (1024, 1024)),
        (PLAIN, (361, 480), 1.5, (384, 480)),  # whole, in windows of its size rounded up
        (PLAIN, (1024, 2048), 2.0, (512, 512)),
        (Inference(scales=(0.5, 2.0)), (1024, 2048), 1.0, (512, 512)),
        (Inference((256, 100)), (1024, 2048), 1.0, (256, 128)),
        (Inference(max_pixels=1, scales=(10.0,)), (4000, 4000), 4.0, (32, 32)),
    ],
)
def test_windows_fit_what_the_network_sees(inference, size, test_scale, expected):
    assert inference.window_for(size, test_scale) == expected
