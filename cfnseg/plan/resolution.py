"""How large a plan's network sees the images: factor, crop, and parts of a batch."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from cfnseg.plan.pace import Machine, Pace
from cfnseg.plan.survey import Survey

SCALES = (0.25, 0.3, 0.4, 0.5, 0.6, 0.75, 1.0, 1.25, 1.5)  # 1.75 gained nothing on CamVid
WIDE = 8  # pixels of the thinnest class: two cells of the output
SEEN = 1500  # images that the time must hold whole; with more or fewer CamVid and IDD-Lite lost
CROP_CPU, CROP_CUDA = 288 * 384, 512 * 1024  # pixels: the crops of camvid_cfn and cityscapes_cfn
LEAST_CROP = 128 * 128  # pixels
FEW_STEPS = 400  # with fewer, crops get smaller; on CamVid 192 steps of larger crops lost
MEMORY = 0.7  # of what is free
TRAINING = 0.85  # of the time; the rest is for start, validation and report


class View(NamedTuple):
    """How large the network sees the images.

    Attributes:
        scale: of the image's sides; why: its reason.
        crop: height and width.
        parts: train.accumulate.
        step: seconds of one.
    """

    scale: float
    why: str
    crop: tuple[int, int]
    parts: int
    step: float


def crop_of(survey: Survey, scale: float, most: float) -> tuple[int, int]:
    """The median image at a scale, or its shape with at most about ``most`` pixels; sides are
    multiples of 32.

    A square of that area where upright and lying images are mixed.
    """
    sides = scale * np.array(survey.size, float)
    if is_mixed(survey):
        sides[:] = math.sqrt(sides.prod())
    sides *= min(1.0, math.sqrt(most / sides.prod()))
    height, width = (max(32, 32 * round(side / 32)) for side in sides.tolist())
    return height, width


def is_mixed(survey: Survey) -> bool:
    """Are at least a tenth of the images upright, and a tenth lying?"""
    upright = (survey.sizes[:, 0] > survey.sizes[:, 1]).mean()
    lying = (survey.sizes[:, 0] < survey.sizes[:, 1]).mean()
    return bool(min(upright, lying) >= 0.1)


def view_of(survey: Survey, machine: Machine, pace: Pace, batch: int, hours: float) -> View:
    """The largest view that memory and time allow, see `scale_of`.

    Crops get smaller, down to 128 x 128, until the memory holds parts of two images, and the time
    400 steps.
    """
    most, seconds = CROP_CUDA if machine.cuda else CROP_CPU, 3600 * hours
    while True:
        scale, why = scale_of(survey, pace, most, seconds)
        crop = crop_of(survey, scale, most)
        pixels = batch * math.prod(crop)
        step = pace.pixel_seconds * pixels
        loading = batch * pace.sample_seconds / machine.cores
        step = max(step, loading) if machine.cuda else step + loading  # a CPU does both
        parts = 1
        while pace.pixel_bytes * pixels / parts > MEMORY * machine.memory and batch >= 4 * parts:
            parts *= 2
        fits = pace.pixel_bytes * pixels / parts <= MEMORY * machine.memory
        if most <= LEAST_CROP or (fits and TRAINING * seconds >= FEW_STEPS * step):
            return View(scale, why, crop, parts, step)
        most = max(LEAST_CROP, int(0.8 * most))


def scale_of(survey: Survey, pace: Pace, most: int, seconds: float) -> tuple[float, str]:
    """The factor on image sides, one of `SCALES`, and its reason.

    Wanted: the image's own size, or up to 1.5 so that the thinnest class is 8 pixels wide. Less if
    the time does not hold 1,500 whole images, or a crop would see less than half of each
    side.
    """
    area = float(np.median(survey.sizes.prod(1)))
    thin, name = thinnest(survey)
    wanted = min(max(WIDE / thin, 1.0), SCALES[-1])
    in_time = math.sqrt(TRAINING * seconds / (SEEN * area * pace.pixel_seconds))
    in_crop = 2 * math.sqrt(most / area)
    scale = max(s for s in SCALES if s <= max(SCALES[0], min(wanted, in_time, in_crop)))
    if name:
        why = (
            f"{name} is the thinnest class: a quarter of its pixels lie in objects at most "
            f"{thin:.1f} pixels wide. "
        )
    else:
        why = (
            f"No class has enough objects to measure their width; images have {area:,.0f} pixels. "
        )
    if scale >= max(s for s in SCALES if s <= wanted):
        if wanted > 1:
            limit = f" At most {SCALES[-1]}." if WIDE / thin > SCALES[-1] else ""
            return scale, f"{why}{WIDE} pixels need a factor of {WIDE / thin:.2g}.{limit}"
        return scale, f"{why}That is enough at the images' own size."
    if in_time <= in_crop:
        return scale, f"{why}The time holds {SEEN:,} whole images up to {in_time:.2g}."
    return scale, f"{why}A crop sees half of each side up to {in_crop:.2g}."


def thinnest(survey: Survey) -> tuple[float, str]:
    """Width and name of the thinnest class; 8 pixels and "" if none was measured."""
    if np.isnan(survey.widths).all():
        return float(WIDE), ""
    c = int(np.nanargmin(survey.widths))
    return float(survey.widths[c]), survey.names[c]
