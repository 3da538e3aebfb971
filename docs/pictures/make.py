"""Make shapes.png and learning.gif: python docs/pictures/make.py WEIGHTS RUN

WEIGHTS predicts scenes of the validation split; RUN is the run folder of a training with pictures.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import cfnseg
from cfnseg.drawing import sheet

HERE = Path(__file__).parent
SCENES = (3, 8, 21, 62)
ROWS = 3  # of a run's picture that the animation shows


def main(weights: str, run: str) -> None:
    data = cfnseg.open_dataset("shapes", "", "val")
    predict = cfnseg.Predictor(weights)
    rows = [
        (data.image(i), data.labels.encode(data.ids(i)), predict(data.image(i)).mask)
        for i in SCENES
    ]
    halves = [sheet(rows[:2], data.labels, 170), sheet(rows[2:], data.labels, 170)]
    gap = np.full((halves[0].shape[0], 24, 3), 255, np.uint8)
    whole = Image.fromarray(np.hstack([halves[0], gap, halves[1]]))
    whole.quantize(128, dither=Image.Dither.NONE).save(HERE / "shapes.png", optimize=True)

    frames = []
    for path in sorted(Path(run, "pictures").glob("step_*.jpg")):
        picture = Image.open(path)
        height = 244 * ROWS - 4  # a row is 240 pixels and 4 of space
        picture = picture.crop((0, 0, picture.width, height)).resize(
            (picture.width // 2, height // 2)
        )
        ImageDraw.Draw(picture).text(
            (6, 4), f"step {int(path.stem[5:])}", fill="white", stroke_width=2, stroke_fill="black"
        )
        frames.append(picture.quantize(96, dither=Image.Dither.NONE))
    first, *rest = frames
    first.save(
        HERE / "learning.gif",
        save_all=True,
        append_images=rest,
        duration=[500] * len(rest) + [2500],
        loop=0,
        optimize=True,
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
