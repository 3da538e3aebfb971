"""The search for near hashes against all pairs, and what the perceptual hash withstands."""

from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfnseg.config import Config, Data
from cfnseg.data.formats import shapes
from cfnseg.doctor import examine_data
from cfnseg.doctor.images import alike, distances, near_pairs
from cfnseg.doctor.reading import perceptual_hash, thumbnail
from tests.data.band_files import write_data

HASH = st.integers(0, 2**64 - 1)


@given(HASH, HASH)
def test_distance_counts_the_bits_that_differ(a, b):
    assert distances(np.array([a], np.uint64), np.array([b], np.uint64)).tolist() == [
        (a ^ b).bit_count()
    ]


@settings(deadline=None)
@given(
    st.lists(st.tuples(HASH, st.lists(st.integers(0, 63), max_size=12)), max_size=12),
    st.integers(0, 10),
)
def test_near_pairs_are_all_of_them(drawn, most):
    """Hashes and neighbours of theirs with a few bits flipped, against a loop over all pairs."""
    values = [
        v for value, flips in drawn for v in (value, value ^ sum(1 << bit for bit in set(flips)))
    ]
    wanted = [
        [i, j]
        for i in range(len(values))
        for j in range(i + 1, len(values))
        if (values[i] ^ values[j]).bit_count() <= most
    ]
    assert near_pairs(np.array(values, np.uint64), most).tolist() == wanted


@pytest.mark.parametrize(
    "change",
    [
        lambda x: (x * 0.8 + 20).astype(np.uint8),
        lambda x: cv2.resize(x, (150, 110), interpolation=cv2.INTER_AREA),
        lambda x: cv2.imdecode(
            cv2.imencode(".jpg", x, [cv2.IMWRITE_JPEG_QUALITY, 40])[1], cv2.IMREAD_COLOR
        ),
    ],
)
def test_a_changed_copy_stays_near_and_another_scene_does_not(change):
    scenes = [shapes.render(seed, (192, 256))[0] for seed in range(6)]
    for i, scene in enumerate(scenes):
        copy, other = change(scene), scenes[i - 1]
        assert (perceptual_hash(scene) ^ perceptual_hash(copy)).bit_count() <= 8
        assert alike(thumbnail(scene), thumbnail(copy)) > 0.95
        assert (perceptual_hash(scene) ^ perceptual_hash(other)).bit_count() > 8


def test_images_of_bands_are_read_with_the_setting(tmp_path):
    """Without data.channels the finding names it; with it there is none."""
    root = write_data(tmp_path / "bands", 6)
    config = Config(
        name="x", runs=str(tmp_path), data=Data(name="folder", root=str(root), crop=(64, 64))
    )
    found = {f["kind"]: f for f in examine_data(config)["findings"]}
    assert found["image-unreadable"]["fix"] == ["--data.channels 5"]
    report = examine_data(replace(config, data=replace(config.data, channels=5)))
    assert report["counts"]["error"] == 0
    assert not {"image-unreadable", "image-gray", "colors"} & {
        f["kind"] for f in report["findings"]
    }
