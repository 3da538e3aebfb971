"""Random and adversarial splits: truths and predictions that scorers get wrong."""

import numpy as np
from hypothesis import strategies as st

from cfnseg.data.labels import IGNORE
from cfnseg.metrics.confusion import confusion_matrix, counts_of

Split = tuple[int, list[np.ndarray], list[np.ndarray]]  # classes, truths, predictions


def full(value: int, shape: tuple[int, int] = (3, 4)) -> np.ndarray:
    return np.full(shape, value, np.uint8)


PIXELS = [full(c, (1, 1)) for c in (0, 1, 2, IGNORE)]
ADVERSARIAL: dict[str, Split] = {
    "absent classes": (7, [full(1), full(4)], [full(1), full(1)]),
    "a class that is only predicted": (5, [full(2), full(2)], [full(2), full(3)]),
    "all ignored": (3, [full(IGNORE), full(IGNORE)], [full(0), full(2)]),
    "one image ignored": (3, [full(IGNORE), full(1)], [full(0), full(1)]),
    "a single class": (1, [full(0), full(IGNORE)], [full(0), full(0)]),
    "one pixel each": (3, PIXELS, [PIXELS[i] for i in (0, 2, 2, 1)]),
    "one pixel": (2, [PIXELS[1]], [PIXELS[0]]),
    "nothing right": (3, [full(0), full(1)], [full(1), full(2)]),
}


@st.composite
def splits(draw) -> Split:
    """One to four images of up to 9 x 9 px; classes may be absent, pixels or images ignored."""
    classes = draw(st.integers(1, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    present = rng.integers(0, classes, rng.integers(1, classes + 1))
    truths, predictions = [], []
    for shape in draw(
        st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=4)
    ):
        truth, prediction = (rng.choice(present, shape).astype(np.uint8) for _ in range(2))
        truth[rng.random(shape) < rng.choice([0.0, 0.3, 1.0])] = IGNORE
        truths.append(truth)
        predictions.append(prediction)
    return classes, truths, predictions


def counts_of_images(split: Split) -> np.ndarray:
    """Our (images, 3, C) counts."""
    classes, truths, predictions = split
    return np.stack(
        [counts_of(confusion_matrix(*pair, classes)) for pair in zip(truths, predictions)]
    )


def flat(split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Truth and prediction of the counted pixels, (N,) int64, for scorers without an ignored id."""
    truth, prediction = (
        np.concatenate([image.ravel() for image in images]).astype(np.int64) for images in split[1:]
    )
    return truth[truth != IGNORE], prediction[truth != IGNORE]
