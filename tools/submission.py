"""Pack masks for a test server: python tools/submission.py voc|cityscapes MASKS [--root DIR] [--split test] [--out FILE]"""

from pathlib import Path

import tyro

from cfnseg.cli import run_tool


def submission(server: tyro.conf.Positional[str], masks: tyro.conf.Positional[Path], *, root: str = "", split: str = "test",
               out: Path | None = None, competition: str = "comp5") -> None:
    """Check that every image has one mask of its size with ids that the server knows, then write the archive it wants.

    Args:
        server: voc or cityscapes.
        masks: a folder of <image name>.png or, as tools/infer.py writes them, <image name>_mask.png.
        root: the data set's folder ("" = its usual place under data/).
        split: the split that was segmented.
        out: the archive (default: beside MASKS).
        competition: VOC's comp5 (trained on VOC alone) or comp6 (on other data too).
    """
    from cfnseg.data.submission import submission as pack

    pack(server, masks, root, split, out, competition)


if __name__ == "__main__":
    run_tool(lambda: tyro.cli(submission))
