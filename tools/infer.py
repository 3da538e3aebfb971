"""Segment images and folders of images: python tools/infer.py PATH... [--weights W] [--out DIR] [--window H W] [--scales S...] [--flip]"""

import sys
from pathlib import Path

import tyro

from cfnseg.cli import run_tool
from cfnseg.inference.settings import PLAIN, Inference


def infer(paths: tyro.conf.Positional[tuple[Path, ...]], *, weights: Path | None = None, out: Path = Path("out"),
          device: str = "auto", inference: tyro.conf.OmitArgPrefixes[Inference] = PLAIN, compile: bool = False) -> None:
    """Write <stem>_mask.png (palette PNG of raw ids) and <stem>_overlay.jpg, and print the image-level labels.

    Args:
        paths: images, and folders: the images that lie directly in them. Earlier results in a folder are left out.
        weights: a weights file of cfnseg (default: the CamVid model that ships in data/weights).
        out: the folder where the masks go; it may lie inside a folder of images, but not be one of ``paths``. Images of one
            stem get their suffix or folder into their results' names.
        device: auto, cpu or cuda.
        inference: windows, views and precision.
        compile: torch.compile the network: slow at first and for each new size, faster afterwards on a GPU.
    """
    from cfnseg.inference.image_files import infer_files

    sys.exit(1 if infer_files(paths, weights, out, device, inference, compile) else 0)


if __name__ == "__main__":
    run_tool(lambda: tyro.cli(infer))
