"""An exported model (.onnx) in place of a weights file: onnxruntime computes, not torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cfnseg.data.bands import Bands
from cfnseg.data.labels import LabelMap
from cfnseg.errors import UserError, first_line, lacking
from cfnseg.inference.predictor import Prediction, Segmented, as_array
from cfnseg.inference.settings import PLAIN, Inference
from cfnseg.inference.windows import Strip
from cfnseg.ops import dense_cross_entropy


class OnnxPredictor:
    """What `cfnseg.inference.predictor.Predictor` is to a weights file, to a file of `cfnseg
    export`; whole images in one plain pass.

    Args:
        path: the file.
        device: "auto" (CUDA where onnxruntime has it), "cpu" or "cuda".
        inference: no other than the default.

    Attributes:
        device: where it computes.
        labels: the classes.
        bands: of the images where they are no 8-bit RGB.
        score: of the weights, as `cfnseg.models.weights.Weights.score`.
        about: what `cfnseg export` wrote: labels, score, licence.
        inference: the default.

    Raises:
        UserError: no such file, none of ours, onnxruntime is missing, or ``inference`` asks for
            windows, views or precision.
    """

    def __init__(
        self, path: str | Path, device: str = "auto", inference: Inference = PLAIN
    ) -> None:
        if not Path(path).is_file():
            raise UserError(f"no file {path}")
        if inference != PLAIN:
            raise UserError(
                f"{path} is exported: windows, views and precision are for weights files", code=2
            )
        try:
            import onnxruntime
        except ImportError:
            raise lacking(str(path), "export") from None
        have = onnxruntime.get_available_providers()
        if device == "cuda" and "CUDAExecutionProvider" not in have:
            raise UserError("onnxruntime has no CUDA here; pip install onnxruntime-gpu", code=2)
        wanted = ["CUDAExecutionProvider"] * (device != "cpu") + ["CPUExecutionProvider"]
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = 3  # errors; they come as exceptions too
        settings.intra_op_num_threads = torch.get_num_threads()
        try:
            self.session = onnxruntime.InferenceSession(
                str(path), settings, providers=[name for name in wanted if name in have]
            )
            self.about: dict[str, Any] = json.loads(
                self.session.get_modelmeta().custom_metadata_map["cfnseg"]
            )
            self.labels = LabelMap.from_dict(self.about["labels"])
            self.bands = Bands.of(self.about.get("bands") or {})
        except Exception as error:  # a parser that is fed garbage raises anything
            raise UserError(
                f"{path} is no model that cfnseg export wrote ({first_line(error)})"
            ) from None
        self.score: dict[str, Any] = self.about["score"]
        self.path, self.inference = path, inference
        on_cuda = self.session.get_providers()[0].startswith("CUDA")
        self.device = torch.device("cuda" if on_cuda else "cpu")
        # None where a file takes any
        sides = self.session.get_inputs()[0].shape[1:3]
        self.size = None if isinstance(sides[0], str) else tuple(sides)

    def __call__(
        self, image: np.ndarray | Image.Image, each: Callable[[Strip], object] | None = None
    ) -> Prediction:
        """Predict one image; as `Predictor.__call__`, with no ``present``.

        Raises:
            UserError: an image of another size than the file takes.
        """
        mask, confidence, logits = self.run(as_array(image, self.bands))
        if each:
            cells = torch.from_numpy(logits)[None]
            each(Strip(slice(0, len(mask)), cells, mask.shape, 0, cells.amax((2, 3))))
        return Prediction(mask, confidence, {})

    def segmented(self, image: Tensor, truth: Tensor) -> Segmented:
        """An image (3, H, W) uint8 with its truth (H, W), for `cfnseg.evaluation`."""
        mask, confidence, logits = self.run(image.permute(1, 2, 0).contiguous().numpy())
        loss = dense_cross_entropy(torch.from_numpy(logits)[None], truth[None], reduction="sum")
        return Segmented(torch.from_numpy(mask), torch.from_numpy(confidence), None, float(loss))

    def run(self, image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """mask (H, W) uint8, confidence (H, W) and logits (C, h, w) float32 of an image (H, W, 3)
        uint8, or of ``bands``."""
        if self.size and image.shape[:2] != self.size:
            (height, width), (h, w) = self.size, image.shape[:2]
            raise UserError(
                f"{self.path} takes images of {height} x {width}, got {h} x {w}; export it with "
                "--size for these, or without --size for all"
            )
        mask, confidence, logits = (x[0] for x in self.session.run(None, {"image": image[None]}))
        return mask, confidence, logits
