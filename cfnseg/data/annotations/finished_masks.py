"""Finished masks: colours, ids, black and white, one file a class; CVAT's, Roboflow's folders."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cfnseg.data.annotations.color_tables import VOID, Table, find_table, read_table
from cfnseg.data.annotations.photographs import SPLITS, split_of
from cfnseg.data.annotations.regions import AnnotatedImage, Annotations, LazyRegions, Region
from cfnseg.data.decode import NoIds, palette_of, shown_pixels, stored_samples
from cfnseg.data.files import (
    existing,
    image_size,
    list_images,
    name_key,
    read_bytes,
    read_text,
)
from cfnseg.errors import UserError

MASKS = {"masks", "mask", "labels", "label", "annotations", "segmentationclass", "gt", "annotation"}
PHOTOGRAPHS = {"images", "image", "imgs", "img", "jpegimages", "photos"}
OBJECTS = "segmentationobject"  # VOC's and CVAT's masks of objects
PLAIN = {"mask", "masks", "label", "labels", "gt", "seg", "segm", "segmentation", "l", "labelids"}
FOREGROUND = "foreground"
SHOWN = 12  # colours in an error
Color = tuple[int, int, int]


@dataclass(frozen=True)
class MaskFile:
    """A mask, and the class that its name says its pixels have; "" = its values name classes."""

    path: Path
    name: str


def read(source: Path, images: Path | None = None, table: Path | None = None) -> Annotations:
    """Read a folder of masks and photographs.

    A mask belongs to the photograph of its name, which ``_mask`` and the like may follow. Where a
    class follows, NAME_class.png, or the folder is the class, class/NAME.png, its non-zero pixels
    are of that class. Other values are looked up in a table: labelmap.txt, _classes.csv,
    classes.txt or a CSV. Without one, masks of one value other than 0 are a foreground, and other
    gray values name the classes; 255 is then ignored.

    Args:
        source: the folder.
        images: the photographs' folder; all images of the source are masks then.
        table: of values, for a source that has none.

    Raises:
        UserError: no masks, colours without a table; as the regions are made, a mask that is
            damaged, may be lossy, or has a value that the table lacks.
    """
    existing(source, "the folder of masks", "Give the folder with masks and photographs.")
    if not source.is_dir():
        raise UserError(f"{source} is a file; give the folder with masks and photographs", code=2)
    found, photographs = _sorted_files(source, images)
    grouped: dict[tuple[Path, str], list[MaskFile]] = {}
    for path in found:
        photograph, split, name = _owner(path.relative_to(source), photographs, images or source)
        grouped.setdefault((photograph, split), []).append(MaskFile(path, name))
    if not grouped:
        raise UserError(
            f"{source} has no masks; expected folders images/ and masks/, or NAME_mask.png beside "
            "NAME.jpg, or --images DIR"
        )
    for masks in grouped.values():
        _demand_one_size(masks)
    named = dict.fromkeys(m.name for masks in grouped.values() for m in masks if m.name)
    values = [m.path for masks in grouped.values() for m in masks if not m.name]
    names, meanings = list(named), None
    if values:
        meanings = find_table(source) or (read_table(table) if table else _table_of(source, values))
        names = [x for x in meanings.names if x.lower() != VOID] + names
    splits = _listed_splits(source)
    annotated = [
        AnnotatedImage(
            photograph,
            LazyRegions(functools.partial(_regions, masks, meanings)),
            tuple(mask.path for mask in masks),
            image_size(masks[0].path)[::-1],
            split=splits.get(name_key(photograph.stem), split),
        )
        for (photograph, split), masks in grouped.items()
    ]
    colors = {name: c for c, name in meanings.colors.items()} if meanings else {}
    without = set(photographs.values()) - {image.path for image in annotated}
    notes = [f"{len(without):,} photographs have no mask and were left out"] if without else []
    if meanings and meanings.path == source and FOREGROUND not in meanings.names:
        notes.append("the masks' values have no names; --classes FILE gives them: `id name r g b`")
    background = next((x for x in names if x.lower() in ("background", "_background_")), None)
    if named and background is None:
        background = "background"
    return Annotations(list(dict.fromkeys(names)), annotated, background, colors, notes)


def _kind(folder: str) -> str:
    return "mask" if folder.lower() in MASKS else "photo" if folder.lower() in PHOTOGRAPHS else ""


def _key(path: Path) -> str:
    """A file's path without suffix and the folders that only say mask or photograph."""
    folders = [SPLITS.get(p.lower(), p) for p in path.parts[:-1] if not _kind(p)]
    return name_key("/".join([*folders, path.stem]))


def _sorted_files(source: Path, images: Path | None) -> tuple[list[Path], dict[str, Path]]:
    """The masks, and the photographs by `_key`."""
    files = [
        p
        for p in list_images(source, deep=True)[0]
        if OBJECTS not in {part.lower() for part in p.relative_to(source).parts}
    ]
    if images:
        own = {_key(p.relative_to(images)): p for p in list_images(images, deep=True)[0]}
        return [p for p in files if p not in own.values()], own
    kinds = {
        p: next(filter(None, map(_kind, p.relative_to(source).parts[-2::-1])), "") for p in files
    }
    photographs, masks = {}, []
    rest = {p: p.relative_to(source) for p, kind in kinds.items() if not kind}
    jpegs = {_key(p) for p in rest.values() if p.suffix.lower() in (".jpg", ".jpeg")}
    stems = jpegs or {_key(p) for p in rest.values()}
    lossless = [p for p in rest if not jpegs or p.suffix.lower() not in (".jpg", ".jpeg")]
    beside = {
        p for p in lossless if _parted(_key(rest[p]), stems) or (jpegs and _key(rest[p]) in jpegs)
    }
    for path in files:
        if kinds[path] == "mask" or path in beside:
            masks.append(path)
        else:
            photographs[_key(path.relative_to(source))] = path
    return masks, photographs


def _parted(key: str, known: object) -> tuple[str, str] | None:
    """``NAME_rest`` as NAME, the longest one that is known, and the rest."""
    for at in range(len(key) - 1, 0, -1):
        if key[at] in "_-." and key[:at] in known and key[at + 1 :]:
            return key[:at], key[at + 1 :]
    return None


def _owner(path: Path, photographs: dict[str, Path], folder: Path) -> tuple[Path, str, str]:
    """A mask's photograph, which may not exist, its split and the class it is of."""
    key = _key(path)
    parts = key.split("/")
    split = split_of(*parts[:-1])
    whole = [("/".join(parts), "")]
    whole += [("/".join(parts[:i] + parts[i + 1 :]), parts[i]) for i in range(len(parts) - 1)]
    whole.append((parts[-1], next((p for p in parts[:-1] if p not in SPLITS), "")))
    for candidate, name in whole:
        if candidate in photographs:
            return photographs[candidate], split, "" if name in SPLITS else name
    for candidate, name in whole:
        if cut := _parted(candidate, photographs):
            rest = "" if cut[1].lower() in PLAIN else cut[1]
            return photographs[cut[0]], split, rest or ("" if name in SPLITS else name)
    stem = path.stem
    for suffix in PLAIN:
        stem = stem.removesuffix(f"_{suffix}")
    alike = [p for k, p in photographs.items() if k.split("/")[-1] in (path.stem, stem)]
    return (alike[0] if len(alike) == 1 else folder / f"{stem}.jpg"), split, ""


def _listed_splits(source: Path) -> dict[str, str]:
    """Photograph's stem -> split, by VOC's and CVAT's ImageSets/Segmentation/<split>.txt."""
    found = {}
    for path in sorted((source / "ImageSets" / "Segmentation").glob("*.txt")):
        if split := split_of(path.stem):
            for line in read_text(path).splitlines():
                found[name_key(line.strip().rsplit("/", 1)[-1])] = split
    return found


def _open(path: Path) -> tuple[np.ndarray, np.ndarray | None]:
    """A mask's gray values or palette indices (H, W), or colours (H, W, 3) uint8; its palette."""
    data = read_bytes(path)
    try:
        return stored_samples(data, path)[0], palette_of(data)
    except NoIds as error:
        if not error.shown:
            raise UserError(f"{path}: {error}") from None
    pixels, _, lossy = shown_pixels(data)
    if lossy:
        raise UserError(f"{path}: the mask may be lossy; its values are not to be relied on: PNG")
    return pixels, None


def _colors(pixels: np.ndarray) -> dict[Color, int]:
    """The colours of (H, W, 3) uint8 and their pixels, the most frequent first."""
    packed = pixels.astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    values, counts = np.unique(packed, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {
        (int(v) >> 16, int(v) >> 8 & 255, int(v) & 255): int(n)
        for v, n in zip(values[order], counts[order])
    }


def _table_of(source: Path, masks: list[Path]) -> Table:
    """A table for masks without one, from the values of all of them; UserError for colours."""
    used: set[int] = set()
    for path in masks:
        pixels, palette = _open(path)
        if pixels.ndim == 3:
            shown = "\n".join(
                f"{i} NAME {r} {g} {b}" for i, (r, g, b) in enumerate([*_colors(pixels)][:SHOWN])
            )
            raise UserError(
                f"{path}: the mask has colours, and {source} has no table of them; give --classes "
                f"FILE with a line `id name r g b` for each. This mask has:\n{shown}"
            )
        used.update(np.unique(pixels).tolist())
    if len(used - {0}) == 1:
        return Table(source, {}, {0: "background", max(used): FOREGROUND})
    if len(used - {255}) > 255:
        raise UserError(
            f"{source}: the masks have {len(used):,} values (object ids?); at most 255 classes"
        )
    ids = {v: "background" if v == 0 else f"class_{v}" for v in sorted(used)}
    return Table(source, {}, ids | ({255: VOID} if 255 in used else {}))


def _regions(masks: list[MaskFile], table: Table | None) -> list[Region]:
    """One region a class of each mask; ignored pixels are a region too."""
    found: list[Region] = []
    for mask in masks:
        pixels, palette = _open(mask.path)
        if mask.name:
            where = pixels.any(2) if pixels.ndim == 3 else pixels > 0
            if (pixels[where] != pixels[where][:1]).any():
                raise UserError(
                    f"{mask.path}: the mask of {mask.name} has several values; expected 0 and one"
                )
            found.append(Region(mask.name, pixels=where))
            continue
        if pixels.ndim == 2 and palette is not None and _is_palette_of(pixels, palette, table):
            pixels = palette[pixels]
        found += (
            _of_colors(mask.path, pixels, table)
            if pixels.ndim == 3
            else _of_ids(mask.path, pixels, table)
        )
    return found


def _demand_one_size(masks: list[MaskFile]) -> None:
    """Raise UserError for masks of an image that differ in size, or two of all classes."""
    whole = [mask.path for mask in masks if not mask.name]
    if len(whole) > 1:
        raise UserError(f"two masks of one photograph: {whole[0]} and {whole[1]}; keep one")
    sizes = {image_size(mask.path): mask.path for mask in masks}
    if len(sizes) > 1:
        (a, path), (b, other) = [*sizes.items()][:2]
        raise UserError(f"{path} is {a[0]}x{a[1]}, {other} of the same image {b[0]}x{b[1]}")


def _is_palette_of(pixels: np.ndarray, palette: np.ndarray, table: Table) -> bool:
    """Are the palette's colours those of the table?"""
    used = np.unique(pixels)
    if used.max(initial=0) >= len(palette):
        return False
    named = [tuple(palette[i].tolist()) in table.colors for i in used]
    by_id = all(int(i) in table.ids or i == 255 for i in used)
    return all(named) or (any(named) and not by_id)


def _of_colors(path: Path, pixels: np.ndarray, table: Table) -> list[Region]:
    found = _colors(pixels)
    border = (224, 224, 192)  # VOC's colour of ignored borders
    if strange := {c: n for c, n in found.items() if c not in table.colors and c != border}:
        shown = ", ".join(f"{c} ({n:,} px)" for c, n in [*strange.items()][:SHOWN])
        raise UserError(f"{path}: {len(strange):,} colours are not in {table.path}: {shown}")
    return [
        Region(
            table.colors.get(c, VOID),
            pixels=(pixels == c).all(2),
            ignored=_void(table.colors.get(c, VOID)),
        )
        for c in found
    ]


def _of_ids(path: Path, pixels: np.ndarray, table: Table) -> list[Region]:
    values, counts = np.unique(pixels, return_counts=True)
    names = {v: table.ids.get(v, VOID if v == 255 else "") for v in values.tolist()}
    if strange := [f"{v} ({n:,} px)" for v, n in zip(values, counts) if not names[v.item()]]:
        raise UserError(
            f"{path}: {len(strange):,} values are not in {table.path}: {', '.join(strange[:SHOWN])}"
        )
    return [Region(n, pixels=pixels == v, ignored=_void(n)) for v, n in names.items()]


def _void(name: str) -> bool:
    return name.lower() == VOID
