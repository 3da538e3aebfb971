"""The share of each class in every photograph of a folder, as a CSV table, with overlays.

    pip install numpy pillow onnxruntime
    python areas.py model.onnx photos --out areas

``model.onnx`` is a file of cfnseg export. Neither torch nor cfnseg is needed.
"""

import argparse
import csv
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}


def read(path: Path) -> np.ndarray:
    """A photograph as (H, W, 3) uint8, upright."""
    with Image.open(path) as image:
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--out", type=Path, default=Path("areas"))
    options = parser.parse_args()
    for path in (options.model, options.photos):
        if not path.exists():
            parser.error(f"no such file or folder: {path}")
    session = onnxruntime.InferenceSession(str(options.model))
    labels = json.loads(session.get_modelmeta().custom_metadata_map["cfnseg"])["labels"]["labels"]
    names = [name for _, name, _ in labels]
    colors = np.array([color for _, _, color in labels], np.uint8)
    photos = sorted(p for p in options.photos.iterdir() if p.suffix.lower() in SUFFIXES)
    options.out.mkdir(parents=True, exist_ok=True)
    failed = 0
    with (options.out / "areas.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["photo", *names, "confidence"])
        for path in photos:
            try:
                image = read(path)
            except OSError as error:
                print(f"{path}: {error}", file=sys.stderr)
                failed += 1
                continue
            mask, confidence, _ = session.run(None, {"image": image[None]})
            shares = np.bincount(mask.ravel(), minlength=len(names)) / mask.size
            table.writerow([path.name, *(f"{x:.4f}" for x in shares), f"{confidence.mean():.3f}"])
            mixed = (0.5 * image + 0.5 * colors[mask[0]]).astype(np.uint8)
            Image.fromarray(mixed).save(options.out / f"{path.name}_overlay.png")
    print(f"{len(photos) - failed} photographs: {options.out / 'areas.csv'}")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
