"""What is wrong with the masks: values that are no ids, and classes that are absent or rare."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable

import numpy as np

from cfnseg.config import Config
from cfnseg.data.labels import IGNORE
from cfnseg.doctor.findings import ERROR, NOTE, WARNING, Case, few, many
from cfnseg.doctor.fix import VOID_LINES, classes_txt
from cfnseg.doctor.forms import PLAIN, Form, channels, colour_table, train_ids, two_meanings
from cfnseg.doctor.reading import MOST, MaskFacts
from cfnseg.metrics.place import CLEAR, FEW, GRIDS, Grid, Place, measure_place, named_sides
from cfnseg.report import text as words

EXPECTED = (
    "one id per pixel: an 8-bit gray or palette PNG of the ids of the classes, or of ignored ones"
)
TITLES = {
    "mask-colors": "masks with colours in place of ids",
    "mask-lossy": "masks that lossy compression has blurred",
    "mask-scaled": "masks with multiplied ids",
    "mask-luminance": "masks with gray values of a palette in place of ids",
    "mask-deep": "masks with 16-bit values",
    "mask-palette": "masks whose palette was sorted anew",
    "mask-binary": "masks of 0 and 255",
    "mask-shifted": "masks whose ids are shifted by one",
}
# kind without a form -> title, text and fixes
UNKNOWN = {
    "mask-unreadable": (
        "masks that cannot be read",
        "{name}: {reason}.",
        ["get these files again", "{fix}  # leaves them out"],
    ),
    "mask-bits": (
        "masks of few bits a pixel, whose ids may be two things",
        "{name}: {reason}.",
        ["save all masks with 8 bits a pixel", "{fix}  # leaves these out"],
    ),
    "mask-lossy": (
        TITLES["mask-lossy"],
        "Such a file, as a JPEG is, does not keep ids: at every edge there are values "
        "between the ids of the two classes, which are other classes.",
        ["get the masks as they were before compression", "{fix}  # leaves them out"],
    ),
    "mask-deep": (
        TITLES["mask-deep"],
        "The values go up to {top:,}, and no rule makes ids of the classes from them.",
        ["write the masks again with the ids in classes.txt"],
    ),
    "photograph": (
        "masks that look like photographs",
        "They have thousands of colours: photographs, perhaps images and labels that "
        "changed places.",
        ["put masks in labels/ and photographs in images/"],
    ),
    "unknown-color": (
        "masks with colours that are no class's",
        "They have colours in place of ids, and no line of classes.txt has them: {colors}.",
        ["give each class its colour in classes.txt, then run this again"],
    ),
}
REMAPPED = ("mask-scaled", "mask-luminance", "mask-binary", "mask-shifted")  # by classes.txt
HIDDEN = 0.8  # share of ignored pixels from which a mask is named
RARE, FEW_IMAGES = 1e-4, 3  # share of the counted pixels, and images, below which a class is rare


def mask_findings(case: Case) -> None:
    """Masks whose values are no ids, by the form that they are in."""
    groups: dict[tuple[str, Form | None], list[int]] = defaultdict(list)
    undecided = two_meanings(case.records, case.labels)
    alike: dict[tuple[str, str], Form] = {}  # palettes and smears have one table per mask
    for i, (record, form) in enumerate(zip(case.records, case.forms)):
        if isinstance(record.mask, str):
            groups["mask-unreadable", None].append(i)
        elif record.mask is None:
            continue
        elif i in undecided:
            groups["mask-bits", None].append(i)
        elif record.mask.lossy and form in (None, PLAIN):
            groups["mask-lossy", None].append(i)
        elif form is None:
            groups[record.mask.unexplained, None].append(i)
        elif form is not PLAIN:
            groups[form.kind, alike.setdefault((form.kind, form.text), form)].append(i)
    for (kind, form), group in groups.items():
        masks, classes = [case.masks[i] for i in group if i in case.masks], ""
        if form is not None:
            title = TITLES[kind]
            text, fix, classes = _recognised(case, form, masks)
        elif kind == "unknown-id":
            title = "masks with unknown ids"
            text, fix, classes = _unknown_ids(case, masks)
        else:
            photo = kind == "unknown-color" and max(mask.distinct for mask in masks) > MOST
            title, text, fix = UNKNOWN["photograph" if photo else kind]
            first = case.records[group[0]]
            text = text.format(
                name=first.pair.mask and first.pair.mask.name,
                colors=_unknown_colors(case, masks),
                reason=undecided.get(group[0], first.mask),
                top=max((mask.values.max() for mask in masks), default=0),
            )
        case.add(kind, ERROR, title, text, EXPECTED, fix, masks=group, classes=classes)


def _recognised(case: Case, form: Form, masks: list[MaskFacts]) -> tuple[str, list[str], str]:
    """Text, fixes and a classes.txt for masks in a form."""
    text, fix, classes = f"{form.text[0].upper()}{form.text[1:]}", [], ""
    if form.kind == "mask-binary":
        text += "; 255 is ignored unless a class has it, so 0 is the only class left"
        if not form.table:
            fix = [f"get the masks that distinguish the {len(case.labels)} classes"]
    if form.kind == "mask-shifted":
        text += " (mmsegmentation undoes it with reduce_zero_label)"
    if form.table:
        text += f": {_meanings(case, form, masks)}"
        everything = all(case.forms[i] is form for i in case.masks)
        if everything and case.data.name == "folder" and form.kind in REMAPPED:
            ids = _remap(case, form, masks)
            classes = classes_txt(case, ids) if ids else ""
        fix.append("{fix}")
    if form.kind == "mask-lossy":
        text += (
            ". Edges will be wrong by a pixel or two: the masks as they were before "
            "compression are better"
        )
    return f"{text}.", fix, classes


def _remap(case: Case, form: Form, masks: list[MaskFacts]) -> dict[int, int] | None:
    """Id -> value in the masks, for a classes.txt that reads them as they are.

    None if an id has two values or none.
    """
    seen, labels = _pixels(masks), case.labels
    own = {label.id for label in labels.labels}
    ids: dict[int, int] = {}
    for known in (*own, *labels.ignore):
        values = [value for value, i in form.table.items() if i == known]
        used = [value for value in values if value in seen]
        if len(used) > 1 or (not values and known != 255):
            return None
        if values:
            ids[known] = (used or values)[0]
    classes = {ids[i] for i in own & ids.keys()}
    return ids if len(classes) == len(labels) and max(classes) <= 255 else None


def _pixels(masks: Iterable[MaskFacts]) -> Counter[int]:
    """Value -> pixels in all masks."""
    pixels: Counter[int] = Counter()
    for mask in masks:
        pixels.update(dict(zip(mask.values.tolist(), mask.counts.tolist())))
    return pixels


def _meanings(case: Case, form: Form, masks: list[MaskFacts]) -> str:
    """The class of each value that occurs, the most frequent first."""
    names = {label.id: f"{label.id} {label.name}" for label in case.labels.labels}
    found = [(v, form.table.get(v)) for v, _ in _pixels(masks).most_common()]
    shown = [f"{_value(v, masks[0].colored)} is {names[i]}" for v, i in found if i in names]
    return few(shown) if shown else "only ignored pixels"


def _value(value: int, colored: bool) -> str:
    return str(tuple(channels(np.array([value]))[0].tolist())) if colored else str(value)


def _unknown_colors(case: Case, masks: list[MaskFacts]) -> str:
    known = colour_table(case.labels)
    found = _pixels(mask for mask in masks if mask.colored).most_common()
    return few([f"{_value(v, True)} ({many(n, 'pixel')})" for v, n in found if v not in known])


def _unknown_ids(case: Case, masks: list[MaskFacts]) -> tuple[str, list[str], str]:
    """Text, fixes and a classes.txt for masks with ids that are no class and not ignored."""
    ids = [label.id for label in case.labels.labels]
    low, top, pixels = min(ids), max(ids), _pixels(masks)
    unknown = [v for v, _ in pixels.most_common() if v not in (*ids, *case.labels.ignore)]
    having = {v: sum(v in mask.values for mask in masks) for v in unknown}
    shown = few(
        [f"id {v} ({many(pixels[v], 'pixel')} in {many(having[v], 'mask')})" for v in unknown]
    )
    text = f"No class and not ignored: {shown}. The classes have the ids {low} to {top}."
    if top + 1 in unknown:
        text += (
            f" {top + 1} is one more than the last: either a class is missing in classes.txt, "
            f"or the masks count from {low + 1} and {low} is unlabelled (mmsegmentation's "
            "reduce_zero_label); then every class's line needs an id one higher."
        )
    if 0 in unknown and top not in pixels:
        text += (
            f" 0 occurs and {top} does not: the masks may count from 0 where classes.txt "
            f"counts from {low}."
        )
    if len(unknown) <= VOID_LINES and case.data.name == "folder":
        fix = ["give them names in classes.txt", "{fix}  # ignores them"]
        return text, fix, classes_txt(case, more_void=unknown)
    return (
        f"{text} So many values are no ids: they look like a photograph's, or like a blurred "
        "or resized mask's.",
        [],
        "",
    )


def count(case: Case) -> np.ndarray:
    """(pairs, C + 2) int64 pixels of each class, ignored, unknown; zeros without a readable mask.

    Masks in a known form count as what they mean.
    """
    size = len(case.labels)
    column = {label.id: c for c, label in enumerate(case.labels.labels)}
    column |= dict.fromkeys(case.labels.ignore, size)
    rows = np.zeros((len(case.pairs), size + 2), np.int64)
    for i, mask in case.masks.items():
        form = case.forms[i]
        ids = (form or PLAIN).ids(mask.values).tolist()
        if mask.colored and form is None:
            ids = [-1] * len(ids)
        np.add.at(rows[i], [column.get(k, size + 1) for k in ids], mask.counts)
    return rows


def totals(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Each class's pixels and images, (C,) int64, and share of the counted pixels, float64."""
    pixels = rows[:, :-2].sum(0)
    return pixels, (rows[:, :-2] > 0).sum(0), pixels / max(1, pixels.sum())


def count_findings(case: Case) -> None:
    """Each split's absent and rare classes, and masks that count for little."""
    for split, role in case.roles.items():
        own = np.array(case.members(split), np.int64)
        masks = int(case.rows[own].any(1).sum())
        _ignored(case, split, own)
        if case.rows[own, :-2].any():
            _absent(case, split, role, masks, *totals(case.rows[own]))


def _absent(
    case: Case,
    split: str,
    role: str,
    masks: int,
    pixels: np.ndarray,
    images: np.ndarray,
    share: np.ndarray,
) -> None:
    names = case.labels.names
    severity, text = {
        "train": (
            ERROR,
            " A class without a pixel cannot be learnt, and its output stays in the net.",
        ),
        "val": (WARNING, " Such a class has no IoU here; where it is predicted it counts as 0."),
        "other": (NOTE, ""),
    }[role]
    if absent := [name for name, n in zip(names, pixels) if n == 0]:
        fix = ["add images with these classes"]
        if case.data.name == "folder":
            fix.append("or take their lines out of classes.txt")
        case.add(
            "class-absent",
            severity,
            f"classes absent from {split}",
            f"{', '.join(absent)}: no pixel in {many(masks, 'mask')}.{text}",
            "some pixels of every class",
            fix if role == "train" else [],
        )
    scarce = (pixels > 0) & ((share < RARE) | (images < min(FEW_IMAGES, masks)))
    if scarce.any():
        rare = [c for c in np.argsort(share, kind="stable") if scarce[c]]
        text = few(
            [
                f"{names[c]} ({many(int(pixels[c]), 'pixel')}, {words.share(share[c])}, "
                f"{many(int(images[c]), 'image')})"
                for c in rare
            ]
        )
        case.add(
            "class-rare",
            NOTE,
            f"rare classes in {split}",
            f"{text}.",
            "",
            ["--loss.class-weights median"] if role == "train" else [],
        )


def _ignored(case: Case, split: str, own: np.ndarray) -> None:
    rows = case.rows[own]
    share = np.where(rows[:, -1] == 0, rows[:, -2] / np.maximum(1, rows.sum(1)), 0)
    nothing, little = own[share == 1], own[(share > HIDDEN) & (share < 1)]
    severity = ERROR if len(nothing) == len(own) else WARNING
    for group, kind, title, worth in (
        (nothing, "all-ignored", "masks in which everything is ignored", "nothing"),
        (little, "mostly-ignored", f"masks of which more than {HIDDEN:.0%} is ignored", "little"),
    ):
        case.add(
            kind,
            severity,
            f"{title}, in {split}",
            f"{len(group):,} of {len(own):,} masks. Such an image teaches and scores {worth}.",
            "pixels of the classes",
            ["leave these images out, or label them"],
            masks=group.tolist(),
        )


def place_findings(case: Case, config: Config) -> None:
    """What the place explains of the labels, the grid that this proposes, and left and right."""
    if len(case.labels) < 2:
        return
    train, val = (_samples(case, role) for role in ("train", "val"))
    case.place = measure_place(train, val, len(case.labels))
    if case.place:
        _grid(case, case.place, config)
    elif labelled := int((train != IGNORE).any((1, 2)).sum()):
        case.add(
            "place",
            NOTE,
            "too few masks to tell what the place explains",
            f"{many(labelled, 'training mask')} with labels; from {FEW} on a grid is proposed.",
        )
    _sides(case, config)


def _samples(case: Case, role: str) -> np.ndarray:
    """(n, 24, 32) uint8 train ids of a role's masks, in order of split and name."""
    own = [i for i in case.masks if case.role(i) == role]
    # by numbers in the names, so that frame 10 follows frame 9
    own.sort(key=lambda i: _numbered(case.pairs[i].name))
    samples = [train_ids(case.masks[i].sample, case.forms[i], case.labels) for i in own]
    return np.array(samples, np.uint8).reshape(-1, *GRIDS[-1])


def _numbered(name: str) -> list[str | int]:
    return [int(n) if n.isdecimal() else n for n in re.split(r"(\d+)", name)]


def _grid(case: Case, place: Place, config: Config) -> None:
    """The note with the shares and the proposal."""
    model, best = config.model, place.grid
    shares = ", ".join(
        f"{_cells(grid)} {words.share(share.value)} ({words.ends(share[1:])})"
        for grid, share in place.shares.items()
        if grid != GRIDS[0]
    )
    text = (
        f"Share of the label entropy, {place.entropy:.2f} bits a pixel, that the place alone "
        f"explains on unseen masks, by rows x columns: {shares}; 95 % intervals over {place.parts} "
        "parts."
    )
    if best != GRIDS[-1]:
        gain = place.gain
        text += (
            f" No grid finer than {_cells(best or GRIDS[0])} adds {100 * CLEAR:.0f} points for "
            f"certain; the most is {words.signed(gain.value)} ({words.ends(gain[1:], sign=True)})."
        )
    fitting = model.name == "cfn" and model.fusion in ("lc", "displaced")
    if not fitting:
        text += " model.grid acts with model.name cfn and model.fusion lc."
    elif model.grid == best:
        text += " The config has this grid."
    if best is None:
        title = "the masks do not agree on what the place explains"
    elif best == GRIDS[0]:
        title = "the place explains little of the labels"
    else:
        title = f"the place explains {words.share(place.shares[best].value)} of the labels"
    change = best is not None and fitting and model.grid != best
    fix = [f"--model.grid {best[0]} {best[1]}"] if change else []
    case.add("place", NOTE, title, text, "", fix)


def _cells(grid: Grid) -> str:
    return f"{grid[0]}x{grid[1]}"


def _sides(case: Case, config: Config) -> None:
    """The warning that mirroring swaps classes, by their places or by their names."""
    names = case.labels.names
    found = case.place.swaps if case.place else []
    swaps = {(names[s.classes[0]], names[s.classes[1]]): s for s in found}
    by_name = [pair for pair in named_sides(names) if pair not in swaps]
    case.mirrored = [*swaps, *by_name]
    if not case.mirrored or not config.data.flip:
        return
    seen = [
        f"{a} and {b} lie where the other is mirrored to: by place each is at least "
        f"{swap.unlikely:,.0f} times less likely in a mirrored mask, and swapping the two names "
        f"undoes {100 * swap.regained:.0f} % of that"
        for (a, b), swap in swaps.items()
    ]
    seen += [f"{a} and {b} are left and right by their names" for a, b in by_name]
    case.add(
        "mirrored-classes",
        WARNING,
        "mirroring swaps classes that are left and right",
        f"{few(seen)}. data.flip mirrors half of the training images, and the ids stay as they "
        "are: the right one is then called the left one.",
        "no mirroring where left and right are two classes",
        ["--data.flip False"],
    )
