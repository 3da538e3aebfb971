"""A demo on loopback for the tests, and what its answers hold."""

import asyncio
import contextlib
import gzip
import http.client
import io
import json
import struct
import threading
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from cfnseg.config import Model
from cfnseg.data.formats import shapes
from cfnseg.data.labels import Label, LabelMap
from cfnseg.demo.answers import Answers
from cfnseg.demo.server import Demo, Server, listening
from cfnseg.models.build import build_model
from cfnseg.models.weights import save_weights
from tests.conftest import ENCODER
from tests.models.test_contributions import noisy

LABELS = LabelMap([Label(i, n, rgb) for i, n, rgb in shapes.CLASSES])


class Reply(NamedTuple):
    """A response; ``json`` is the header of an answer, or the body of an error."""

    status: int
    headers: dict
    json: dict
    parts: dict


def tiny_weights(path: Path, name: str = "cfn") -> Path:
    """A weights file of the test backbone on the classes of the built-in scenes."""
    torch.manual_seed(0)
    settings = Model(name=name, encoder=ENCODER, encoder_weights=None, width=8, grid=(2, 3))
    net = build_model(settings, len(LABELS))
    save_weights(path, noisy(net) if name == "cfn" else net, settings, LABELS, {"data": "shapes"})
    return path


@contextlib.contextmanager
def served(weights: Path):
    """The `Demo` of a weights file, and its port."""
    demo = Demo(Answers(weights, "cpu"))
    server = Server(demo.app())
    with listening("127.0.0.1", 0) as ear:
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([ear])))
        thread.start()
        try:
            yield demo, ear.getsockname()[1]
        finally:
            server.should_exit = server.force_exit = True
            thread.join()


def request(port: int, method: str, path: str, body=None, timeout=120, **headers) -> Reply:
    """Ask the demo at a port of loopback."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    with contextlib.closing(line):
        line.request(method, path, body, headers)
        answer = line.getresponse()
        got = {name.lower(): value for name, value in answer.getheaders()}
        content = answer.read()
    if got.get("content-encoding") == "gzip":
        content = gzip.decompress(content)
    if got.get("content-type") == "application/octet-stream":
        return Reply(answer.status, got, *unpacked(content))
    whole = json.loads(content) if got.get("content-type") == "application/json" else {}
    return Reply(answer.status, got, whole, {"body": content})


def unpacked(content: bytes) -> tuple[dict, dict]:
    """The inverse of `cfnseg.demo.answers.packed`."""
    (length,) = struct.unpack("<I", content[:4])
    header, at, parts = json.loads(content[4 : 4 + length]), 4 + length, {}
    for name, size in header["parts_bytes"].items():
        parts[name], at = content[at : at + size], at + size
    assert at == len(content)
    return header, parts


def scene(seed: int, size=(64, 80), kind: str = "PNG") -> bytes:
    """A scene as a file."""
    file = io.BytesIO()
    Image.fromarray(shapes.render(seed, size)[0]).save(file, kind)
    return file.getvalue()
