"""Images and masks of different sizes: how that comes about, and what brings them together."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from PIL import Image

from cfnseg.doctor.examine import ImageFacts, MaskFacts, Record
from cfnseg.doctor.findings import ERROR, WARNING, Finding
from cfnseg.doctor.scan import Scan

# what makes an image upright, by its EXIF orientation (as Pillow's ImageOps.exif_transpose does it)
UPRIGHT = {2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
           5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_90}


@dataclass(frozen=True)
class Cause:
    """Why sizes differ, and whether the mask can be brought to its image's."""

    text: str
    mends: bool


EXIF = Cause("the image is turned by its EXIF orientation, the mask was made for the image as it is stored", True)
SCALED = Cause("the mask has the image's shape at another scale", True)
SWAPPED = Cause("height and width are swapped: the mask is turned or transposed, and only its maker knows which", False)
OTHER = Cause("the shapes differ: one of the two is cropped, padded or belongs to another image", False)


def cause(image: ImageFacts, mask: MaskFacts) -> Cause | None:
    """Why a mask does not have its image's size; None if it has."""
    if mask.size == image.size:
        return None
    if mask.size == image.stored and image.orientation in UPRIGHT:
        return EXIF
    if mask.size == image.size[::-1]:
        return SWAPPED
    scale = mask.size[0] / image.size[0]
    return SCALED if abs(mask.size[1] - scale * image.size[1]) <= max(1.0, scale) else OTHER


def fitted(ids: np.ndarray, image: ImageFacts, why: Cause) -> np.ndarray:
    """A mask (H, W) at its image's size, for a cause that can be mended."""
    picture = Image.fromarray(ids)
    if why is EXIF:
        return np.asarray(picture.transpose(UPRIGHT[image.orientation]))
    return np.asarray(picture.resize(image.size[::-1], Image.Resampling.NEAREST))


def size_findings(found: Scan, records: list[Record]) -> list[Finding]:
    """Masks whose size is not their image's, by cause, and images that EXIF turns without changing their size."""
    groups = defaultdict(list)
    turned = []
    for index, record in enumerate(records):
        if isinstance(record.image, ImageFacts) and isinstance(record.mask, MaskFacts):
            if why := cause(record.image, record.mask):
                groups[why].append(index)
            elif record.image.orientation in UPRIGHT and record.image.stored == record.image.size:  # the size does not tell
                turned.append(index)
    findings = []
    for why, group in groups.items():
        image, mask = records[group[0]].image, records[group[0]].mask
        sizes = f"The mask of {records[group[0]].pair.name} is {mask.size[1]}x{mask.size[0]}, its image {image.size[1]}x{image.size[0]}"
        findings.append(Finding(
            "size-mismatch", ERROR, "masks of another size than their images", f"{why.text[0].upper()}{why.text[1:]}. {sizes}.",
            "a mask of exactly its image's size, upright", [found.shown(records[i].pair.mask) for i in group],
            ["{mend}"] if why.mends else ["make these masks again", "{mend}  # leaves them out"], pairs=group))
    if turned:
        findings.append(Finding(
            "image-turned", WARNING, "images that their EXIF orientation turns over",
            "cfnseg shows images upright. The masks have the right size either way: look at the pictures whether they are upright too.",
            "images stored upright", [found.shown(records[i].pair.image) for i in turned], pairs=turned))
    return findings
