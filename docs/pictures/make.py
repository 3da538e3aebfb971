"""Make shapes.png, explain.png and learning.gif: python docs/pictures/make.py WEIGHTS RUN

WEIGHTS predicts scenes of the validation split; RUN is the run folder of a training with pictures.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

import cfnseg
from cfnseg.inference.explanation import explain
from cfnseg.inference.explanation_picture import explanation_picture

HERE = Path(__file__).parent
SCENES = (3, 8, 21)
WIDE, HIGH, GAP = 272, 204, 8  # of a panel, in pixels
ROWS = 3  # of a run's picture that the animation shows


def main(weights: str, run: str) -> None:
    data = cfnseg.open_dataset("shapes", "", "val")
    predict = cfnseg.Predictor(weights)
    whole = Image.new("RGB", (3 * WIDE + 2 * GAP, 20 + len(SCENES) * (HIGH + GAP)), "white")
    draw = ImageDraw.Draw(whole)
    for column, title in enumerate(("image", "truth", "prediction")):
        draw.text((column * (WIDE + GAP), 2), title, fill="#5c6472", font_size=14)
    for row, index in enumerate(SCENES):
        image = data.image(index)
        masks = data.labels.encode(data.ids(index)), predict(image).mask
        panels = image, *map(data.labels.colorize, masks)
        for column, panel in enumerate(panels):
            place = column * (WIDE + GAP), 22 + row * (HIGH + GAP)
            whole.paste(Image.fromarray(panel).resize((WIDE, HIGH)), place)
    whole.quantize(128, dither=Image.Dither.NONE).save(HERE / "shapes.png", optimize=True)

    explained(predict, np.asarray(data.image(SCENES[1])))

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


def explained(predict: cfnseg.Predictor, image: np.ndarray) -> None:
    found = explain(predict.model, torch.from_numpy(image.copy()).permute(2, 0, 1))
    drawn = explanation_picture(image, predict(image).mask, found, predict.labels)
    method = Image.Quantize.MAXCOVERAGE  # keeps the small swatches
    whole = Image.fromarray(drawn).quantize(256, method, dither=Image.Dither.NONE)
    whole.save(HERE / "explain.png", optimize=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
