"""Archives of predicted masks as the VOC and Cityscapes servers take them, looked through before they are written.

Sources: VOC2012's development kit, section 5.3 (indexed PNGs in results/VOC2012/Segmentation/comp5_test_cls, or comp6 with other
training data; a tar). Cityscapes' submission page and cityscapesscripts' evaluator (one PNG of label ids an image, named
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
from rich.console import Console
from rich.progress import track

from cfnseg.data.dataset import USUAL_ROOT
from cfnseg.data.files import image_size, read_mask, read_stored
from cfnseg.data.formats import cityscapes, voc
from cfnseg.data.predictions import find_masks, note_few_bits
from cfnseg.errors import UserError, unknown
from cfnseg.storage import write_atomic

SERVERS = {"voc": "http://host.robots.ox.ac.uk:8080", "cityscapes": "https://www.cityscapes-dataset.com/submit"}
LEGAL = {"voc": range(21), "cityscapes": range(34)}


def submission(server: str, masks: Path, root: str = "", split: str = "test", out: Path | None = None, competition: str = "comp5") -> Path:
    """Check a folder of masks and pack it for a server. The same masks give the same bytes.

    Args:
        server: voc or cityscapes.
        masks: has ``<image name>.png`` or ``<image name>_mask.png`` for every image of the split and no other PNG, each with
            exactly its image's size, one channel, raw ids: VOC 0 to 20, Cityscapes label ids 0 to 33. They are packed with 8 bits.
        root: the data set's folder, for names and sizes of the images; "" = the usual place under data/.
        split: test, or val to try it.
        out: the archive; None = <masks>_<server>_<split>.tgz or .zip beside the folder.
        competition: VOC's comp5 (trained on VOC alone) or comp6 (on other data too).

    Returns:
        The archive's path.

    Raises:
        UserError: a mask that the server would refuse or score as wrong (how many, the first of them, why); nothing is written.
    """
    if server not in SERVERS:
        raise unknown("the server", server, SERVERS)
    if competition not in ("comp5", "comp6"):
        raise unknown("--competition", competition, ("comp5", "comp6"))
    images = (voc if server == "voc" else cityscapes).images(Path(root or USUAL_ROOT[server]).expanduser(), split)
    files, extra = find_masks(masks, [image.stem for image in images])
    if extra:
        raise UserError(f"{masks} has {len(extra)} PNG files that belong to no image of {split}, first {extra[0].name}; move them away")
    _demand_sound(server, files, images)
    out = out or masks.with_name(f"{masks.resolve().name}_{server}_{split}{'.tgz' if server == 'voc' else '.zip'}")
    if server == "voc":
        folder = f"results/VOC2012/Segmentation/{competition}_{split}_cls"
        members = ((f"{folder}/{image.stem}.png", _png(read_mask(file), voc.LABELS.palette())) for file, image in zip(files, images))
        write_atomic(out, lambda beside: _write_tgz(beside, members))
    else:
        members = ((image.name.replace(cityscapes.TAIL, "_labelIds.png"), _png(read_mask(file))) for file, image in zip(files, images))
        write_atomic(out, lambda beside: _write_zip(beside, members))
    print(f"{out}: {len(files)} masks, {out.stat().st_size / 1e6:.1f} MB; hand it in at {SERVERS[server]}")
    return out


def _demand_sound(server: str, files: list[Path], images: list[Path]) -> None:
    """Raise UserError if a mask is unreadable, of another form or size than the server wants, or has ids that it does not know."""
    faults, used = [], np.zeros(256, bool)
    labels, alone = (voc if server == "voc" else cityscapes).LABELS, note_few_bits(files)
    for file, image in track(list(zip(files, images)), "check", console=Console(stderr=True)):
        try:
            size = image_size(image)
            stored = read_stored(file)
            labels.demand_one_meaning(stored, file, alone)
        except UserError as error:
            faults.append(str(error).replace(f"{file}:", f"{file.name}:"))
            continue
        mask = stored.ids
        if mask.shape[::-1] != size:
            faults.append(f"{file.name} is {mask.shape[1]}x{mask.shape[0]}, its image {size[0]}x{size[1]}")
        else:
            ids = np.flatnonzero(np.bincount(mask.reshape(-1), minlength=256))
            used[ids] = True
            if unknown_ids := sorted(set(ids.tolist()) - set(LEGAL[server])):
                faults.append(f"{file.name} has the ids {unknown_ids[:8]}, the server knows {LEGAL[server][0]} to {LEGAL[server][-1]}"
                              + "; 255 is no answer, every pixel needs a class" * (255 in unknown_ids))
    if server == "cityscapes" and used.any():
        _demand_label_ids(set(np.flatnonzero(used).tolist()))
    if faults:
        raise UserError(f"{len(faults)} of {len(files)} masks cannot be handed in: {'; '.join(faults[:3])}{' ...' * (len(faults) > 3)}")


def _demand_label_ids(used: set[int]) -> None:
    """Raise UserError if all masks together look like train ids: none above 18, and some that no trained label has."""
    trained = {label.id for label in cityscapes.LABELS.labels}
    if max(used - {255}, default=0) < 19 and used - {255} - trained:
        raise UserError(f"the masks hold train ids (0 to 18; here {sorted(used)}), the server wants label ids (road 7, car 26, ...): "
                        "write them with cfnseg's LabelMap.write, as tools/infer.py does, or map them by cityscapesscripts' labels.py")


def _png(mask: np.ndarray, palette: np.ndarray | None = None) -> bytes:
    """(H, W) uint8 as a PNG, gray or with a palette (256, 3) uint8."""
    image, buffer = Image.fromarray(mask), io.BytesIO()
    if palette is not None:
        image.putpalette(palette.tobytes())
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _write_tgz(path: Path, members: Iterable[tuple[str, bytes]]) -> None:
    with path.open("wb") as raw, gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed, tarfile.open(mode="w", fileobj=packed) as tar:
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
