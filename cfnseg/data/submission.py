"""Archives of predicted masks for the VOC and Cityscapes servers, checked before they are written.

Sources: VOC2012's development kit, section 5.3 (indexed PNGs in results/VOC2012/Segmentation/
comp5_test_cls, or comp6 with other training data; a tar). Cityscapes' submission page and
cityscapesscripts' evaluator (one PNG of label ids per image, named
<city>_<sequence>_<frame>*.png; a zip).
"""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from cfnseg.data.dataset import USUAL_ROOT
from cfnseg.data.files import few_bits, image_size, read_mask
from cfnseg.data.formats import cityscapes, voc
from cfnseg.data.predictions import find_masks, read_predicted_ids
from cfnseg.errors import UserError, unknown
from cfnseg.progress import progress
from cfnseg.storage import write_atomic

SERVERS = {
    "voc": "http://host.robots.ox.ac.uk:8080",
    "cityscapes": "https://www.cityscapes-dataset.com/submit",
}
FORMATS = {"voc": voc, "cityscapes": cityscapes}
LEGAL = {"voc": range(21), "cityscapes": range(34)}


def submission(
    server: str,
    masks: Path,
    root: str = "",
    split: str = "test",
    out: Path | None = None,
    competition: str = "comp5",
) -> Path:
    """Check a folder of masks and pack it for a server. The same masks give the same bytes.

    Args:
        server: voc or cityscapes.
        masks: has ``<image name>.png`` or ``<image name>_mask.png`` for every image of the split
            and no other PNG. Each has its image's size and one channel of raw ids: VOC 0 to 20,
            Cityscapes label ids 0 to 33. The archive has 8 bits per pixel.
        root: the data set's folder, for names and sizes of the images; "" = the usual place.
        split: test, or val for a trial.
        out: the archive; None = <masks>_<server>_<split>.tgz or .zip next to the folder.
        competition: VOC's comp5 (trained on VOC only) or comp6 (on other data too).

    Returns:
        The archive's path.

    Raises:
        UserError: masks that the server would refuse or misread (count, first ones, reasons);
            nothing is written.
    """
    if server not in SERVERS:
        raise unknown("the server", server, SERVERS)
    if competition not in ("comp5", "comp6"):
        raise unknown("--competition", competition, ("comp5", "comp6"))
    images = FORMATS[server].images(Path(root or USUAL_ROOT[server]).expanduser(), split)
    files, extra = find_masks(masks, [image.stem for image in images])
    if extra:
        raise UserError(
            f"{masks} has {len(extra)} PNG files that belong to no image of {split}, "
            f"first {extra[0].name}; move them away"
        )
    _demand_sound(server, files, images)
    suffix, write = (".tgz", _write_tgz) if server == "voc" else (".zip", _write_zip)
    out = out or masks.with_name(f"{masks.resolve().name}_{server}_{split}{suffix}")
    if server == "voc":
        folder, palette = (
            f"results/VOC2012/Segmentation/{competition}_{split}_cls",
            voc.LABELS.palette(),
        )
        names = [f"{folder}/{image.stem}.png" for image in images]
    else:
        palette, names = None, [i.name.replace(cityscapes.TAIL, "_labelIds.png") for i in images]
    members = ((name, _png(read_mask(file), palette)) for name, file in zip(names, files))
    write_atomic(out, lambda temporary: write(temporary, members))
    print(
        f"{out}: {len(files)} masks, {out.stat().st_size / 1e6:.1f} MB; "
        f"hand it in at {SERVERS[server]}"
    )
    return out


def _demand_sound(server: str, files: list[Path], images: list[Path]) -> None:
    """Raise UserError for masks that are unreadable, of another size, or have illegal ids."""
    faults, used, legal = [], set(), LEGAL[server]
    labels, alone = FORMATS[server].LABELS, few_bits(files, "predictions")
    for file, image in progress(zip(files, images), len(files), "check", "masks"):
        try:
            width, height = image_size(image)
            mask = read_predicted_ids(
                file, labels, (height, width), alone, f"its image {width}x{height}"
            )
        except UserError as error:
            faults.append(str(error).replace(str(file), file.name))
            continue
        ids = set(np.flatnonzero(np.bincount(mask.ravel())).tolist())
        used |= ids
        if illegal := sorted(ids - set(legal)):
            faults.append(
                f"{file.name} has the ids {illegal[:8]}, the server knows {legal[0]} to {legal[-1]}"
                + "; 255 is no answer, every pixel needs a class" * (255 in illegal)
            )
    known = used - {255}
    trained = {label.id for label in labels.labels}
    if server == "cityscapes" and max(known, default=19) < 19 and known - trained:
        raise UserError(
            f"the masks hold train ids (0 to 18; here {sorted(used)}), the server wants label "
            "ids (road 7, car 26, ...): write them with cfnseg's LabelMap.write, as "
            "cfnseg infer does, or map them by cityscapesscripts' labels.py"
        )
    if faults:
        raise UserError(
            f"{len(faults)} of {len(files)} masks cannot be handed in: {'; '.join(faults[:3])}"
            + " ..." * (len(faults) > 3)
        )


def _png(mask: np.ndarray, palette: np.ndarray | None = None) -> bytes:
    """(H, W) uint8 as a PNG, gray or with a palette (256, 3) uint8."""
    image, buffer = Image.fromarray(mask), io.BytesIO()
    if palette is not None:
        image.putpalette(palette.tobytes())
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _write_tgz(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with (
        path.open("wb") as raw,
        gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed,
        tarfile.open(mode="w", fileobj=packed) as tar,
    ):
        for name, data in members:
            info = tarfile.TarInfo(name)  # owner, group and time are 0
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def _write_zip(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as packed:  # PNGs are compressed already
        for name, data in members:
            info = zipfile.ZipInfo(name)  # its time is the first of 1980
            info.external_attr = 0o644 << 16
            packed.writestr(info, data)
