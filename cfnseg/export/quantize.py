"""int8: onnxruntime's static quantisation of an exported file."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from cfnseg.data.dataset import Dataset
from cfnseg.errors import UserError, first_line
from cfnseg.export.parity import cut
from cfnseg.progress import progress
from cfnseg.storage import write_atomic


class _Images:
    """What onnxruntime asks for images one after the other."""

    def __init__(self, data: Dataset, count: int, size: tuple[int, int] | None) -> None:
        chosen = np.unique(np.linspace(0, len(data.names) - 1, count).astype(int))
        images = (data.image(int(i)) for i in progress(chosen, len(chosen), "calibrate"))
        self.left = ({"image": (cut(x, size) if size else x)[None]} for x in images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self.left, None)


def write_int8(
    file: Path, path: Path, data: Dataset, images: int, size: tuple[int, int] | None
) -> None:
    """Write ``file`` with convolutions in int8: weights per channel, activations by their range on
    images (Nagel et al. 2021, "A White Paper on Neural Network Quantization", section 3).

    Args:
        file: a file of `cfnseg.export.onnx_file.write_onnx`.
        path: the new file.
        data: whose images calibrate: evenly chosen, training images best.
        images: how many.
        size: (H, W) that ``file`` takes, None = any.

    Raises:
        UserError: a file that onnxruntime cannot quantise.
    """
    from onnxruntime import quantization as ort

    with tempfile.TemporaryDirectory() as folder:
        prepared = Path(folder) / "prepared.onnx"
        try:
            ort.shape_inference.quant_pre_process(
                str(file),
                str(prepared),
                skip_optimization=True,  # it would write out the fusion weights of every cell
                skip_symbolic_shape=True,
            )
            write_atomic(
                path,
                lambda temporary: ort.quantize_static(
                    str(prepared),
                    str(temporary),
                    _Images(data, images, size),
                    quant_format=ort.QuantFormat.QDQ,
                    op_types_to_quantize=["Conv"],
                    per_channel=True,
                    activation_type=ort.QuantType.QUInt8,
                    weight_type=ort.QuantType.QInt8,
                ),
            )
        except (ValueError, RuntimeError) as error:
            raise UserError(f"{file} cannot be quantised: {first_line(error)}") from None
