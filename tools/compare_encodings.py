"""Encoders over a stage of a trained image-level CFN against its fused feature: python tools/compare_encodings.py WEIGHTS --root DIR"""

from pathlib import Path

import tyro

from cfnseg.cli import run_tool


def compare_encodings(weights: tyro.conf.Positional[Path], *, root: str = "", train_images: int = 5000, test_images: int = 5000,
                      stage: int = 1, dimensions: int = 64, seed: int = 0, out: Path | None = None) -> None:
    """Print linear-SVM accuracy and retrieval mAP of BoW, VLAD, Fisher vector, cross-layer pooling and the fused feature.

    Args:
        weights: of an image-level CFN (tools/train_cls.py).
        root: the data set that it was trained on.
        train_images: images that the encoders and the SVM are fitted to.
        test_images: images that are scored; 5000 are those that configs/cifar10_cfn.py holds out.
        stage: index of the stage whose places are the local descriptors.
        dimensions: of the descriptors after PCA.
        seed: of k-means, mixtures and SVM.
        out: a file for the table as well.
    """
    from cfnseg.encoding.compare import markdown_table
    from cfnseg.encoding.study import compare_on_weights
    from cfnseg.storage import write_atomic

    table = markdown_table(compare_on_weights(weights, root, train_images, test_images, stage, dimensions, seed))
    print(table)
    if out:
        write_atomic(out, lambda beside: beside.write_text(table))


if __name__ == "__main__":
    run_tool(lambda: tyro.cli(compare_encodings))
