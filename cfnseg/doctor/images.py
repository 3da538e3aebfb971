"""What is odd about the images: unreadable, constant, gray, small, or unlike what the encoder was trained on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import timm

from cfnseg.config import Config
from cfnseg.doctor.examine import ImageFacts, Record
from cfnseg.doctor.findings import ERROR, NOTE, WARNING, Finding, many
from cfnseg.doctor.scan import Scan

FLAT = 2.0  # standard deviation, of 255, below which an image shows nothing
TINY = 8  # pixels; of a shorter side a deep encoder sees nothing
FAR, SPREAD = 1.5, 4.0  # the encoder's deviations that the mean may lie off, and how many times as large or small the deviation may be


@dataclass(frozen=True)
class Colors:
    """Mean and deviation of all pixels of some images, RGB in 0..255."""

    mean: np.ndarray
    std: np.ndarray


def image_findings(found: Scan, records: list[Record]) -> list[Finding]:
    """Findings about single images."""
    read = [i for i, r in enumerate(records) if isinstance(r.image, ImageFacts)]
    broken = [i for i, r in enumerate(records) if isinstance(r.image, str)]
    flat = [i for i in read if records[i].image.std.max() < FLAT]
    gray = [i for i in read if records[i].image.gray and i not in set(flat)]

    def files(group: list[int]) -> list[str]:
        return [found.shown(p.image) if p.image else p.name for p in (records[i].pair for i in group)]

    findings = []
    if broken:
        first = records[broken[0]]
        findings.append(Finding("image-unreadable", ERROR, "images that cannot be read", f"{first.pair.image.name}: {first.image}.",
                                "a whole image file", files(broken), ["get these files again", "{mend}  # leaves them out"], pairs=broken))
    if flat:
        dark = sum(records[i].image.mean.max() < 16 for i in flat)
        text = f"{dark:,} of {len(flat):,} are black. Nothing can be learnt from them."
        findings.append(Finding("image-constant", WARNING, "images of a single colour", text, "a picture",
                                files(flat), ["look at them, and delete them with their masks"], pairs=flat))
    if thin := [i for i in read if min(records[i].image.size) < TINY]:
        sizes = ", ".join(f"{records[i].image.size[1]}x{records[i].image.size[0]}" for i in thin[:3])
        findings.append(Finding("image-tiny", WARNING, f"images with a side of less than {TINY} pixels", f"They are {sizes} pixels. "
                                "Training pads them to the crop.", "pictures", files(thin),
                                ["look at them, and delete them with their masks"], pairs=thin))
    text = f"{len(gray):,} of {len(read):,} have three equal channels."
    if gray and len(gray) < len(read) / 2:
        findings.append(Finding("image-gray", WARNING, "gray images among coloured ones", text, "images of one kind", files(gray),
                                pairs=gray))
    elif gray:
        findings.append(Finding("image-gray", NOTE, "the images are gray", text, "", files(gray),
                                ["--data.photometric 0 keeps the jitter from colouring them"]))
    return findings


def colors_of(records: list[Record]) -> Colors | None:
    """Over all pixels of the images that could be read."""
    read = [r.image for r in records if isinstance(r.image, ImageFacts)]
    if not read:
        return None
    share = np.array([image.size[0] * image.size[1] for image in read], np.float64)
    share /= share.sum()
    means, stds = np.stack([image.mean for image in read]), np.stack([image.std for image in read])
    mean = share @ means
    return Colors(mean, np.sqrt(np.maximum(share @ (stds**2 + means**2) - mean**2, 0)))


def normalisation(config: Config) -> Colors:
    """What the encoder takes off and divides by, in 0..255."""
    settings = timm.get_pretrained_cfg(config.model.encoder, allow_unregistered=True)
    return Colors(255 * np.array(settings.mean), 255 * np.array(settings.std))


def color_finding(config: Config, colors: Colors) -> Finding:
    """Mean and deviation against the encoder's."""
    own = normalisation(config)
    offset, spread = (colors.mean - own.mean) / own.std, colors.std / own.std
    far = np.abs(offset).max() > FAR or spread.max() > SPREAD or spread.min() < 1 / SPREAD
    text = (f"RGB in 0..255: mean {_triple(colors.mean, 1)}, deviation {_triple(colors.std, 1)}; in 0..1: {_triple(colors.mean / 255, 3)}, "
            f"{_triple(colors.std / 255, 3)}. {config.model.encoder} expects {_triple(own.mean / 255, 3)}, {_triple(own.std / 255, 3)}, "
            f"and so is given values with mean {_triple(offset, 2)} and deviation {_triple(spread, 2)}.")
    if far:
        return Finding("colors", WARNING, "the colours are far from those that the encoder was trained on",
                       f"{text} The further the two are apart, the less its pretrained weights are worth.",
                       "mean about 0 and deviation about 1 after normalisation")
    return Finding("colors", NOTE, "mean and deviation of the training images", text)


def size_finding(config: Config, records: list[Record]) -> Finding:
    """Sizes of the training images against the crop."""
    sizes = np.array([r.image.size for r in records if isinstance(r.image, ImageFacts)])
    order = sizes[np.argsort(sizes.prod(1), kind="stable")]
    small = (sizes < config.data.crop).any(1)
    largest = (sizes * config.data.scale[1] < config.data.crop).any(1)
    low, middle, high = (f"{w}x{h}" for h, w in (order[0], order[len(order) // 2], order[-1]))
    height, width = config.data.crop
    text = (f"Smallest {low}, median {middle}, largest {high}. The crop is {width}x{height}: {small.mean():.0%} of the images are smaller, "
            "and padded where the random scale does not enlarge them.")
    if largest.mean() > 0.5:
        fits = " ".join(str(max(32, min(crop, int(n) // 32 * 32))) for crop, n in zip(config.data.crop, np.median(sizes, 0)))
        return Finding("crop", WARNING, "most training images never fill the crop", text, "a crop that the images fill",
                       mend=[f"--data.crop {fits}"])
    return Finding("sizes", NOTE, f"sizes of {many(len(sizes), 'training image')}", text)


def _triple(values: np.ndarray, digits: int) -> str:
    return "(" + ", ".join(f"{v:.{digits}f}" for v in values) + ")"
