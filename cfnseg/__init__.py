"""cfnseg: semantic segmentation around the pixel-level Convolutional Fusion Network."""

import os

# Huge pages for torch's large CPU tensors, read once, at torch's first allocation: fewer page faults (docs/performance.md).
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"

# the parts behind the public names import torch, timm and Lightning, which takes seconds; --help should not
_PUBLIC = {"CFN": "cfnseg.models.cfn", "Predictor": "cfnseg.inference.predictor", "load": "cfnseg.models.weights",
           "evaluate": "cfnseg.evaluation.segmentation", "train": "cfnseg.workflows"}
__all__ = ["CFN", "Predictor", "evaluate", "load", "train"]


def __getattr__(name: str):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'cfnseg' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_PUBLIC[name]), name)
