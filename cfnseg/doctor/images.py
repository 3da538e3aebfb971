"""What is wrong with the images: content, colours, sizes that differ from the masks', copies."""

from __future__ import annotations

import re
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
import timm
from numpy.typing import NDArray
from PIL import Image, ImageOps
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from cfnseg.config import Config
from cfnseg.data.decode import ORIENTATION
from cfnseg.doctor.findings import ERROR, NOTE, WARNING, Case, few, many
from cfnseg.report import text as words

FLAT = 2.0  # standard deviation, of 255, below which an image shows nothing
TINY = 8  # pixels; of a shorter side a deep encoder sees nothing
FAR = 1.5  # the encoder's deviations between its mean and the data's
SPREAD = 4.0  # ratio of the deviations, either way
NEAR = 8  # bits of 64 that near hashes may differ in; unrelated images differ in 32 on average
ALIKE = 0.95  # correlation of the thumbnails that confirms it
BANDS = r"--data\.channels \d+"  # in the reason why an image of bands is not read as RGB
SHOWN = 6  # pairs of pictures
BLOCK = 256  # hashes compared with all others at once: 100 MB for 100,000


def image_findings(case: Case) -> None:
    """Single images: unreadable, constant, tiny, gray."""
    broken = [i for i, r in enumerate(case.records) if isinstance(r.image, str)]
    flat = [i for i, x in case.images.items() if x.std.max() < FLAT]
    gray = [i for i, x in case.images.items() if x.gray and x.std.max() >= FLAT]
    tiny = [i for i, x in case.images.items() if min(x.size) < TINY]
    look = ["look at them, and delete them with their masks"]
    reasons = [f"{case.pairs[i].image.name}: {case.records[i].image}." for i in broken]
    settings = sorted({found[0] for x in reasons if (found := re.search(BANDS, x))})
    case.add(
        "image-unreadable",
        ERROR,
        "images that cannot be read",
        "".join(reasons[:1]),
        "a whole image file",
        settings or ["get these files again", "{fix}  # leaves them out"],
        images=broken,
    )
    dark = sum(case.images[i].mean.max() < 16 for i in flat)
    case.add(
        "image-constant",
        WARNING,
        "images of a single colour",
        f"{dark:,} of {len(flat):,} are black. Nothing can be learnt from them.",
        "a picture",
        look,
        images=flat,
    )
    sizes = ", ".join(_size(case.images[i].size) for i in tiny[:3])
    case.add(
        "image-tiny",
        WARNING,
        f"images with a side of less than {TINY} pixels",
        f"They are {sizes} pixels. Training pads them to the crop.",
        "pictures",
        look,
        images=tiny,
    )
    text = f"{len(gray):,} of {len(case.images):,} have three equal channels."
    if case.data.channels:
        return  # the pictures of bands may be gray
    if len(gray) < len(case.images) / 2:
        case.add(
            "image-gray",
            WARNING,
            "gray images among coloured ones",
            text,
            "images of one kind",
            images=gray,
        )
    else:
        case.add(
            "image-gray",
            NOTE,
            "the images are gray",
            text,
            "",
            ["--data.photometric 0 keeps the jitter from colouring them"],
            images=gray,
        )


def training_findings(case: Case, config: Config) -> None:
    """Colours and sizes of the training images against the encoder and the crop."""
    images = [x for i, x in case.images.items() if case.role(i) == "train"]
    if not images:
        return
    sizes = np.array([image.size for image in images])
    share = sizes.prod(1) / sizes.prod(1).sum()
    means, stds = (np.stack([getattr(x, name) for x in images]) for name in ("mean", "std"))
    mean = share @ means
    std = np.sqrt(np.maximum(share @ (stds**2 + means**2) - mean**2, 0))
    if not config.data.channels:  # else the run counts them
        _color_finding(case, config.model.encoder, mean / 255, std / 255)
    _crop_finding(case, config, sizes)


def _color_finding(case: Case, encoder: str, mean: np.ndarray, std: np.ndarray) -> None:
    """Mean and deviation (3,) in 0..1 of all pixels against those that the encoder divides by."""
    settings = timm.get_pretrained_cfg(encoder, allow_unregistered=True)
    own_mean, own_std = np.array(settings.mean), np.array(settings.std)
    offset, spread = (mean - own_mean) / own_std, std / own_std
    text = (
        f"RGB in 0..255: mean {_triple(255 * mean, 1)}, deviation {_triple(255 * std, 1)}; in "
        f"0..1: {_triple(mean, 3)}, {_triple(std, 3)}. {encoder} expects "
        f"{_triple(own_mean, 3)}, {_triple(own_std, 3)}, and so gets values "
        f"with mean {_triple(offset, 2)} and deviation {_triple(spread, 2)}."
    )
    if np.abs(offset).max() > FAR or spread.max() > SPREAD or spread.min() < 1 / SPREAD:
        case.add(
            "colors",
            WARNING,
            "the colours are far from those that the encoder was trained on",
            f"{text} The further they are apart, the less its pretrained weights are worth.",
            "mean about 0 and deviation about 1 after normalisation",
        )
    else:
        case.add("colors", NOTE, "mean and deviation of the training images", text)


def _triple(values: np.ndarray, digits: int) -> str:
    return "(" + ", ".join(f"{v:z.{digits}f}" for v in values) + ")"


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"


def _crop_finding(case: Case, config: Config, sizes: np.ndarray) -> None:
    order = sizes[np.argsort(sizes.prod(1), kind="stable")]
    low, middle, high = (_size(order[k]) for k in (0, len(order) // 2, -1))
    crop = config.data.crop
    small = (sizes < crop).any(1).mean()
    padded = (
        (
            f"{words.share(small)} of the images are smaller, and padded where the random scale "
            "does not enlarge them"
        )
        if small
        else "No image is smaller"
    )
    text = f"Smallest {low}, median {middle}, largest {high}. The crop is {_size(crop)}. {padded}."
    if (sizes * config.data.scale[1] < crop).any(1).mean() > 0.5:
        fits = [max(32, min(c, int(n) // 32 * 32)) for c, n in zip(crop, np.median(sizes, 0))]
        case.add(
            "crop",
            WARNING,
            "most training images never fill the crop",
            text,
            "a crop that the images fill",
            [f"--data.crop {fits[0]} {fits[1]}"],
        )
    else:
        case.add("sizes", NOTE, f"sizes of {many(len(sizes), 'training image')}", text)


@dataclass(frozen=True)
class Mismatch:
    """Why the sizes of image and mask differ, and whether the mask can be fitted to its image."""

    text: str
    fixable: bool


EXIF = Mismatch(
    "The image is turned by its EXIF orientation, the mask was made for the image as it is stored",
    True,
)
SCALED = Mismatch("The mask has the image's shape at another scale", True)
SWAPPED = Mismatch(
    "Height and width are swapped: the mask is turned or transposed, and only its "
    "maker knows which",
    False,
)
OTHER = Mismatch(
    "The shapes differ: one of the two is cropped, padded or belongs to another image", False
)


def mismatch(case: Case, index: int) -> Mismatch | None:
    """Why a mask does not have its image's size; None if it has."""
    image, mask = case.images[index], case.masks[index]
    if mask.size == image.size:
        return None
    if mask.size == image.stored and 1 < image.orientation <= 8:
        return EXIF
    if mask.size == image.size[::-1]:
        return SWAPPED
    scale = mask.size[0] / image.size[0]
    similar = abs(mask.size[1] - scale * image.size[1]) <= max(1.0, scale)
    return SCALED if similar else OTHER


def fitted(case: Case, index: int, ids: np.ndarray) -> np.ndarray:
    """A pair's mask (H, W) at its image's size, if the mismatch is fixable or there is none."""
    picture, image = Image.fromarray(ids), case.images[index]
    if mismatch(case, index) is EXIF:
        picture.getexif()[ORIENTATION] = image.orientation
        return np.asarray(ImageOps.exif_transpose(picture))
    return np.asarray(picture.resize(image.size[::-1], Image.Resampling.NEAREST))


def size_findings(case: Case) -> None:
    """Masks of another size than their images, and images that EXIF turns in the same size."""
    groups: dict[Mismatch, list[int]] = defaultdict(list)
    turned = []
    for i in sorted(case.images.keys() & case.masks.keys()):
        image = case.images[i]
        if why := mismatch(case, i):
            groups[why].append(i)
        elif 1 < image.orientation <= 8 and image.stored == image.size:  # the size does not show it
            turned.append(i)
    for why, group in groups.items():
        first = group[0]
        sizes = (
            f"The mask of {case.pairs[first].name} is {_size(case.masks[first].size)}, its "
            f"image {_size(case.images[first].size)}"
        )
        fix = ["{fix}"] if why.fixable else ["make these masks again", "{fix}  # leaves them out"]
        case.add(
            "size-mismatch",
            ERROR,
            "masks of another size than their images",
            f"{why.text}. {sizes}.",
            "a mask of exactly its image's size, upright",
            fix,
            masks=group,
        )
    case.add(
        "image-turned",
        WARNING,
        "images that their EXIF orientation turns over",
        "cfnseg shows images upright. The masks have the right size either way: look at the "
        "pictures whether they are upright too.",
        "images stored upright",
        images=turned,
    )


def duplicate_findings(case: Case) -> None:
    """Images with the same pixels, or that look the same."""
    seen = [i for i, x in case.images.items() if x.std.max() >= FLAT]
    splits = np.array([pair.split for pair in case.pairs])
    exact, near = _twins(case, seen)
    for report, pairs in ((_exact, exact), (_near, near)):
        across = splits[pairs[:, 0]] != splits[pairs[:, 1]]
        for between, part in ((True, pairs[across]), (False, pairs[~across])):
            if len(part):
                report(case, part, between)
    both = [(i, j) for i, j in exact.tolist() if i in case.masks and j in case.masks]
    if different := [(i, j) for i, j in both if case.masks[i].digest != case.masks[j].digest]:
        case.add(
            "duplicate-disagrees",
            WARNING,
            "the same image with different masks",
            f"{many(len(different), 'pair')} of images with equal pixels, but not with equal "
            "masks: one of the two is wrong.",
            "one mask for one image",
            ["look at both, and delete one"],
            twins=different[:SHOWN],
            files=case.files((i for twins in different for i in twins), "mask"),
        )


def _twins(case: Case, seen: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """(n, 2) pairs of ``seen`` with equal pixels, and of those that look alike without being equal.

    Each further copy of an image is paired with the first.
    """
    first: dict[bytes, int] = {}
    exact = [(k, i) for i in seen if (k := first.setdefault(case.images[i].digest, i)) != i]
    ones = np.array(sorted(first.values()), np.int64)
    pairs = ones[near_pairs(np.array([case.images[i].hash for i in ones], np.uint64), NEAR)]
    near = [
        (i, j)
        for i, j in pairs.tolist()
        if alike(case.images[i].thumbnail, case.images[j].thumbnail) >= ALIKE
    ]
    return np.array(exact, np.int64).reshape(-1, 2), np.array(near, np.int64).reshape(-1, 2)


def _exact(case: Case, pairs: np.ndarray, between: bool) -> None:
    named = few([" = ".join(case.files(twins)) for twins in pairs])
    count = f"{many(len(pairs), 'pair' if between else 'copy')} with equal pixels: {named}."
    more = {"files": case.files(np.unique(pairs)), "twins": pairs[:SHOWN].tolist()}
    if between:
        case.add(
            "duplicate-between",
            ERROR,
            "the same image in two splits",
            f"{count} What was trained on cannot be validated on: the score comes out too high.",
            "no image in two splits",
            ["{fix}  # leaves the training copies out"],
            **more,
        )
    else:
        case.add(
            "duplicate-within",
            WARNING,
            "the same image twice in a split",
            f"{count} It counts twice in training or in the score.",
            "each image once",
            ["delete the copies with their masks"],
            **more,
        )


def _near(case: Case, pairs: np.ndarray, between: bool) -> None:
    images = np.unique(pairs)
    closest = sorted(pairs.tolist(), key=lambda twins: (apart(case, *twins), twins))
    more = {"files": case.files(images), "twins": closest[:SHOWN]}
    graph = coo_array((np.ones(len(pairs)), pairs.T), shape=(len(case.pairs),) * 2)
    groups = len(np.unique(connected_components(graph, directed=False)[1][images]))
    video = is_video(case)
    text = (
        f"{many(len(images), 'image')} in {many(groups, 'group')}, {many(len(pairs), 'pair')} "
        f"(perceptual hashes at most {NEAR} of 64 bits apart)."
    )
    if video:
        text += (
            " Neighbours by name look alike throughout: frames of a video, where this is to "
            "be expected."
        )
    if not between:
        case.add("near-duplicate-within", NOTE, "images of a split that look alike", text, **more)
        return
    held = sum(case.role(i) == "val" for i in images)
    fix = (
        "split by sequence, with --data.holdout PREFIX"
        if video
        else "look at them, and keep a scene in one split"
    )
    case.add(
        "near-duplicate-between",
        NOTE if video else WARNING,
        "images that look alike in two splits",
        f"{text} Of the validation images {held:,} "
        "look like one elsewhere: the score says less about other images.",
        "splits that share no scene",
        [fix],
        **more,
    )


def apart(case: Case, i: int, j: int) -> int:
    """The bits in which the hashes of two images differ."""
    return (case.images[i].hash ^ case.images[j].hash).bit_count()


def is_video(case: Case) -> bool:
    """Whether neighbours by name look far more alike than any two images: frames of a video."""
    # a split's pairs are sorted by name
    hashes = np.array([image.hash for image in case.images.values()], np.uint64)
    if len(hashes) < 20:
        return False
    other = np.random.default_rng(0).permutation(hashes)
    neighbours = np.median(distances(hashes[1:], hashes[:-1]))
    return bool(neighbours < 0.7 * np.median(distances(hashes, other)))


def distances(a: NDArray[np.uint64], b: NDArray[np.uint64]) -> np.ndarray:
    """Hamming distances of (n,) hashes: (n,) uint8 in 0..64."""
    return _bits(a ^ b).sum(1, dtype=np.uint8)


def near_pairs(hashes: NDArray[np.uint64], most: int) -> np.ndarray:
    """All (i, j), i < j, of (n,) hashes at most ``most`` bits apart, sorted: (k, 2) int64."""
    found = [np.empty((0, 2), np.int64)]
    signs = _bits(hashes) * np.float32(2) - 1  # a dot product is 64 - 2 x distance
    for start in range(0, len(signs), BLOCK):
        dots = signs[start : start + BLOCK] @ signs[start:].T
        pairs = np.argwhere(dots >= 64 - 2 * most)
        found.append(pairs[pairs[:, 0] < pairs[:, 1]] + start)
    return np.concatenate(found)


def _bits(hashes: NDArray[np.uint64]) -> np.ndarray:
    return np.unpackbits(hashes[:, None].view(np.uint8), axis=1)


def alike(a: np.ndarray, b: np.ndarray) -> float:
    """Correlation of two thumbnails in -1..1; 0 if one is constant."""
    x, y = (part.ravel() - part.mean() for part in (a, b))
    scale = np.linalg.norm(x) * np.linalg.norm(y)
    return float(x @ y / scale) if scale else 0.0
