"""The ONNX file: one file with the whole function, its labels and what it was trained on."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from typing import Any

import torch

from cfnseg.errors import UserError, first_line, lacking
from cfnseg.export.program import Program
from cfnseg.models.segmenter import blank_images
from cfnseg.storage import write_atomic

OPSET = 18  # the first whose Resize has the antialiasing that a test scale below 1 needs
OUTPUTS = ["mask", "confidence", "logits"]
SIDES = "NHW"  # names of the free sides of ``image``


def traced(program: Program, size: tuple[int, int] | None) -> torch.export.ExportedProgram:
    """The graph of ``program`` for images of ``size`` (H, W), or of any size, and any batch."""
    example = blank_images(program.model, (2, *(size or (97, 131)))).permute(0, 2, 3, 1)
    example = example.contiguous()
    free = torch.export.Dim.DYNAMIC
    shapes = {0: free} if size else {0: free, 1: free, 2: free}
    with torch.no_grad():
        return torch.export.export(program, (example,), dynamic_shapes=(shapes,))


def write_onnx(
    program: Program, path: Path, size: tuple[int, int] | None, about: dict[str, Any]
) -> None:
    """Write the file.

    Args:
        program: what it computes.
        path: the file; its weights are in it.
        size: (H, W) of the images that it takes, None = any.
        about: JSON of the entry ``cfnseg`` of its metadata.

    Raises:
        UserError: a package is missing, or the exporter cannot translate the model.
    """
    try:
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError:
        raise lacking("exporting to ONNX", "export") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's and onnxscript's own, about their next releases
        try:
            written = torch.onnx.export(
                traced(program, size),
                dynamo=True,
                opset_version=OPSET,
                input_names=["image"],
                output_names=OUTPUTS,
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise UserError(f"the model cannot be written as ONNX: {first_line(error)}") from None
    assert written is not None
    _name_sides(written.model)
    written.model.metadata_props["cfnseg"] = json.dumps(about)
    write_atomic(path, lambda temporary: written.save(temporary, external_data=False))


def _name_sides(model: Any) -> None:
    """Call the free sides of ``image`` N, H and W, in place of the tracer's s40, s62 and s73."""
    free = zip(model.graph.inputs[0].shape, SIDES)
    names = {str(side): name for side, name in free if not isinstance(side, int)}
    symbol = re.compile("|".join(rf"\b{side}\b" for side in names))
    made = (value for node in model.graph.all_nodes() for value in node.outputs)
    for value in {*model.graph.inputs, *made}:
        for axis, side in enumerate(value.shape or ()):
            if not isinstance(side, int) and str(side) != "None":
                value.shape[axis] = symbol.sub(lambda found: names[found[0]], str(side))
