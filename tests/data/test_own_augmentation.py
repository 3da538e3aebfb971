"""data.augment: a user's function sees train ids, is seeded, and its faults are one line."""

import numpy as np
import pytest

import cfnseg
from cfnseg.config import Config, Data, Model, check
from cfnseg.data.transforms import TrainTransform
from cfnseg.errors import UserError

TURN = """
import numpy as np
def turn(image, mask, rng):
    k = int(rng.integers(1, 4))
    return np.rot90(image, k), np.rot90(mask, k)
def in_place(image, mask, rng):
    image[:] = 7
    mask[:] = 255
    return image, mask
def small(image, mask, rng):
    return image, mask[1:]
def none(image, mask, rng):
    pass
def wide(image, mask, rng):
    return image.astype(np.float32), mask
"""


@pytest.fixture
def where(tmp_path):
    path = tmp_path / "own.py"
    path.write_text(TURN)
    return lambda name: f"{path}:{name}"


def settings(augment):
    return Data(
        augment=augment, crop=(64, 64), scale=(1.0, 1.0), flip=False, photometric=0.0, workers=0
    )


def pair():
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (64, 64, 3), np.uint8), rng.integers(0, 3, (64, 64), np.uint8)


def test_image_and_mask_turn_together_and_by_the_seed(where):
    transform, (image, mask) = TrainTransform(settings(where("turn"))), pair()
    turns = set()
    for seed in range(12):
        sample = transform(image, mask, "a", seed)
        again = transform(image, mask, "a", seed)
        assert np.array_equal(sample.image, again.image)
        k = next(k for k in (1, 2, 3) if np.array_equal(sample.mask, np.rot90(mask, k)))
        assert np.array_equal(sample.image, np.rot90(image, k).transpose(2, 0, 1))
        turns.add(k)
    assert turns == {1, 2, 3}


def test_what_a_function_changes_in_place_is_a_copy(where):
    image, mask = pair()
    before = image.copy(), mask.copy()
    sample = TrainTransform(settings(where("in_place")))(image, mask, "a", 0)
    assert (sample.mask == 255).all() and (sample.image == 7).all()
    assert np.array_equal(image, before[0]) and np.array_equal(mask, before[1])


@pytest.mark.parametrize("name", ["small", "none", "wide"])
def test_a_wrong_result_is_one_line(where, name):
    with pytest.raises(UserError, match=rf"own\.py:{name}'.*of one size in return"):
        TrainTransform(settings(where(name)))(*pair(), "a", 0)


def test_no_such_file_or_function(where, tmp_path):
    with pytest.raises(UserError, match="no file"):
        TrainTransform(settings(f"{tmp_path / 'none.py'}:f"))
    with pytest.raises(UserError, match="has no function absent"):
        TrainTransform(settings(where("absent")))
    model = Model(level="image")
    with pytest.raises(UserError, match=r"data.augment is .* nothing for images"):
        check(Config(name="x", model=model, data=Data(name="cifar10", augment="a.py:f")))


def test_it_trains_with_loader_processes(where, tmp_path):
    data = Data(name="shapes", augment=where("turn"), crop=(64, 64), workers=1)
    train = cfnseg.Train(max_steps=1, batch=2, pictures=0, accelerator="cpu")
    model = Model(encoder="mobilenetv3_small_050", encoder_weights=None, width=8)
    config = Config(name="x", runs=str(tmp_path), model=model, data=data, train=train)
    assert (cfnseg.train(config) / "best.safetensors").is_file()
