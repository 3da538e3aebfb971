"""cfnseg: semantic segmentation around the pixel-level Convolutional Fusion Network.

cfnseg.train(config)                      train; the run folder
cfnseg.load(path), cfnseg.Predictor(...)  trained weights, and masks from them
cfnseg.evaluate(model, dataset)           mIoU and its companions
cfnseg.Config, Model, Data, Optim, Loss, Train     every setting
cfnseg.Dataset, Label, LabelMap           what a data set has, and its classes
cfnseg.CFN, Output, region_of             the network, and a crop's place for it
cfnseg.lc_fuse, dense_cross_entropy, dense_argmax, dense_scores     its operations
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

# Huge pages for torch's large CPU tensors: fewer page faults (docs/performance.md). torch reads
# the variable once, at its first allocation.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.2.0"
__all__ = [
    "CFN",
    "Config",
    "Data",
    "Dataset",
    "Label",
    "LabelMap",
    "Loss",
    "Model",
    "Optim",
    "Output",
    "Predictor",
    "Train",
    "dense_argmax",
    "dense_cross_entropy",
    "dense_scores",
    "evaluate",
    "lc_fuse",
    "load",
    "open_dataset",
    "read_image",
    "region_of",
    "train",
]

if TYPE_CHECKING:  # editors and type checkers read these, and flag every other name
    from cfnseg.config import Config, Data, Loss, Model, Optim, Train
    from cfnseg.data.dataset import Dataset, open_dataset
    from cfnseg.data.files import read_image
    from cfnseg.data.labels import Label, LabelMap
    from cfnseg.evaluation.segmentation import evaluate
    from cfnseg.inference.predictor import Predictor
    from cfnseg.models.cfn import CFN
    from cfnseg.models.region import region_of
    from cfnseg.models.segmenter import Output
    from cfnseg.models.weights import load
    from cfnseg.ops import dense_argmax, dense_cross_entropy, dense_scores, lc_fuse
    from cfnseg.workflows import train
else:

    def __getattr__(name: str) -> object:
        """Import a public name when it is asked for."""
        for module, names in _MODULES.items():
            if name in names:
                return getattr(import_module(module), name)
        raise AttributeError(f"module 'cfnseg' has no attribute {name!r}")


# torch, timm and Lightning take seconds to import; --help should not
_MODULES = {
    "cfnseg.config": ("Config", "Data", "Loss", "Model", "Optim", "Train"),
    "cfnseg.data.dataset": ("Dataset", "open_dataset"),
    "cfnseg.data.files": ("read_image",),
    "cfnseg.data.labels": ("Label", "LabelMap"),
    "cfnseg.models.weights": ("load",),
    "cfnseg.evaluation.segmentation": ("evaluate",),
    "cfnseg.inference.predictor": ("Predictor",),
    "cfnseg.models.cfn": ("CFN",),
    "cfnseg.models.region": ("region_of",),
    "cfnseg.models.segmenter": ("Output",),
    "cfnseg.ops": ("dense_argmax", "dense_cross_entropy", "dense_scores", "lc_fuse"),
    "cfnseg.workflows": ("train",),
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
