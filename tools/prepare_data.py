"""Get and check official data: python tools/prepare_data.py voc|voc_aug|cityscapes|camvid|coco|coco_voc|coco_stuff|ade20k [--root DIR]"""

import tyro

from cfnseg.cli import run_tool


def prepare_data(name: tyro.conf.Positional[str], *, root: str = "") -> None:
    """Download what is missing, convert it, compare the counts with the official ones, and print the command that trains.

    Interrupted, the same command continues. Archives that you put into the folder yourself are used as they are.

    Args:
        name: voc, voc_aug (VOC + SBD), cityscapes (asks for your account), camvid, coco (80 things and background), coco_voc
            (VOC's 21 classes), coco_stuff (171 classes) or ade20k.
        root: the data set's folder ("" = its usual place under data/).
    """
    from cfnseg.data.download.official import prepare

    prepare(name, root)


if __name__ == "__main__":
    run_tool(lambda: tyro.cli(prepare_data))
