"""The demo's server: answers are the predictor's, and hostile uploads get one line."""

import io
import re
import socket
import struct
import threading
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from cfnseg.data.decode import decode_image
from cfnseg.demo import answers, server
from cfnseg.demo.answers import Answers
from cfnseg.errors import UserError
from cfnseg.inference.explanation import explain
from cfnseg.inference.pixel_parts import pixel_parts
from cfnseg.inference.predictor import Predictor
from cfnseg.models.weights import load
from tests.conftest import run_tool
from tests.data.odd_files import chunk, pillow
from tests.demo.serving import LABELS, request, scene, served, tiny_weights


@pytest.fixture(scope="module")
def demo(weights):
    with served(weights) as (demo, port):
        yield demo, port


@pytest.fixture(scope="module")
def port(demo):
    return demo[1]


def turned(image: np.ndarray) -> bytes:
    """A JPEG that is upright by its EXIF orientation alone."""
    exif = Image.Exif()
    exif[0x0112] = 6
    return pillow(image, "JPEG", exif=exif, quality=95)


def photo(height=90, width=140):
    draw = np.random.default_rng(1).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.array(Image.fromarray(draw).resize((width, height), Image.Resampling.BICUBIC))


FILES = {
    "png": lambda: pillow(photo(), "PNG"),
    "jpeg": lambda: pillow(photo(), "JPEG"),
    "turned": lambda: turned(photo()),
    "webp": lambda: pillow(photo(), "WEBP"),
    "bmp": lambda: pillow(photo(), "BMP"),
    "tiff": lambda: pillow(photo(), "TIFF"),
    "gray": lambda: pillow(photo()[..., 0], "PNG"),
    "alpha": lambda: pillow(np.dstack([photo(), photo()[..., :1]]), "PNG"),
    "cmyk": lambda: pillow(Image.fromarray(photo()).convert("CMYK"), "JPEG"),
    "one pixel": lambda: pillow(photo()[:1, :1], "PNG"),
    "one row": lambda: pillow(photo(1, 300), "PNG"),
}


@pytest.mark.parametrize("kind", FILES)
def test_the_answer_is_the_predictors(port, weights, kind):
    data = FILES[kind]()
    image = decode_image(data, kind)
    wanted = Predictor(weights, "cpu")(image)
    got = request(port, "POST", "/api/segment", data)
    assert got.status == 200 and "content-encoding" not in got.headers
    size = image.shape[:2]
    assert got.json["size"] == got.json["view"] == [size[1], size[0]]
    ids, percent = (
        np.frombuffer(got.parts[name], np.uint8).reshape(size) for name in ("ids", "confidence")
    )
    np.testing.assert_array_equal(ids, wanted.mask)
    np.testing.assert_array_equal(percent, np.rint(100 * wanted.confidence))
    file = io.BytesIO()
    LABELS.write(file, wanted.mask)
    assert got.parts["mask"] == file.getvalue()
    np.testing.assert_array_equal(decode_image(got.parts["photo"], "photo"), image)
    pixels = np.bincount(wanted.mask.ravel(), minlength=8)
    assert [n for _, n, _ in got.json["classes"]] == sorted(pixels[pixels > 0], reverse=True)
    for c, n, sure in got.json["classes"]:
        assert n == pixels[c]
        assert sure == pytest.approx(wanted.confidence[wanted.mask == c].mean(), rel=1e-5)


def test_a_view_shows_pixels_of_the_mask(port, weights, monkeypatch):
    monkeypatch.setattr(answers, "VIEW", 50)
    got = request(port, "POST", "/api/segment", FILES["png"]())
    mask = Predictor(weights, "cpu")(photo()).mask
    assert got.json["size"] == [140, 90] and got.json["view"] == [50, 32]
    ids = np.frombuffer(got.parts["ids"], np.uint8).reshape(32, 50)
    # the page says of (across, down) what the mask has at these columns and rows
    x, y = np.arange(50) * 140 // 50, np.arange(32) * 90 // 32
    np.testing.assert_array_equal(ids, mask[y[:, None], x])
    assert Image.open(io.BytesIO(got.parts["mask"])).size == (140, 90)
    assert Image.open(io.BytesIO(got.parts["photo"])).size == (50, 32)


def test_parts_of_a_pixel_sum_to_its_logits(port, weights):
    image, model = photo(), load(weights).model
    mask = Predictor(weights, "cpu")(image).mask
    with torch.inference_mode():
        cells = model(torch.from_numpy(image).permute(2, 0, 1)[None]).pixel
    for x, y in ((0, 0), (70, 44), (139, 89)):
        got = request(port, "POST", f"/api/pixel?x={x}&y={y}", FILES["png"]())
        assert got.json["names"] == [*model.branch_names, "bias"]
        assert got.json["names"][-2] == "context" and len(got.json["colors"]) == 7
        logits = np.sum(got.json["parts"], 0)
        assert logits.argmax() == mask[y, x]
        full = torch.nn.functional.interpolate(cells, scale_factor=4, mode="bilinear")[0, :, y, x]
        np.testing.assert_allclose(logits, full, rtol=1e-4, atol=1e-4)
        own = pixel_parts(model, torch.from_numpy(image).permute(2, 0, 1), x, y)
        np.testing.assert_allclose(got.json["parts"], own.parts, rtol=1e-5, atol=1e-6)


def test_the_map_of_branches_is_the_explanations(port, weights):
    got = request(port, "POST", "/api/branches", FILES["png"](), **{"accept-encoding": "gzip"})
    assert got.headers["content-encoding"] == "gzip"
    wanted = explain(load(weights).model, torch.from_numpy(photo()).permute(2, 0, 1))
    deciding = np.frombuffer(got.parts["deciding"], np.uint8).reshape(got.json["size"][::-1])
    np.testing.assert_array_equal(deciding, wanted.deciding)
    assert got.json["stride"] == 4 and sum(got.json["shares"]) == pytest.approx(1)


def bomb(width: int, height: int) -> bytes:
    """A small PNG whose header promises many pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1_000_000), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    )


def many_scans() -> bytes:
    """A progressive JPEG whose last scan comes a thousand times."""
    data = pillow(photo(), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + 1000 * last + b"\xff\xd9"


def animation(kind: str) -> bytes:
    frames = [Image.fromarray(photo()), Image.fromarray(photo()[::-1])]
    return pillow(frames[0], kind, save_all=True, append_images=frames[1:])


SVG = (
    b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script>'
    b'<image href="file:///etc/passwd"/></svg>'
)
HOSTILE = {
    "empty": (lambda: b"", 400, "is empty"),
    "text": (lambda: b"hello, world\n" * 50, 400, "no image that can be read; expected JPEG"),
    "svg": (lambda: SVG, 400, "no image that can be read"),
    "html": (lambda: b"<!doctype html><script>alert(1)</script>", 400, "no image that can"),
    "postscript": (lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 400, "no image"),
    "gif": (lambda: animation("GIF"), 400, "no image that can be read"),
    "pdf": (lambda: b"%PDF-1.7\n", 400, "no image that can be read"),
    "noise": (lambda: np.random.default_rng(0).bytes(5000), 400, "no image that can be read"),
    "cut jpeg": (lambda: pillow(photo(), "JPEG")[:-400], 400, "not a readable image"),
    "cut header": (lambda: pillow(photo(), "JPEG")[:60], 400, "image"),
    "cut png": (lambda: pillow(photo(), "PNG")[:-400], 400, "cut off"),
    "wrong png": (lambda: FILES["png"]().replace(b"IDAT", b"IDAT\0", 1), 400, "not a readable"),
    "animated webp": (lambda: animation("WEBP"), 400, "2 pictures"),
    "pages": (lambda: animation("TIFF"), 400, "2 pictures"),
    "bomb": (lambda: bomb(6000, 6000), 400, "the data ends before"),
    "large": (lambda: bomb(8000, 8000), 413, "8000 x 8000 px; at most 40,000,000 px"),
    "vast": (lambda: bomb(60000, 60000), 413, "more than 40,000,000 px"),
    "a line": (lambda: bomb(30_000, 1), 413, "a side of 20,000"),
    "scans": (many_scans, 400, "more than 100 scans"),
}


@pytest.mark.parametrize(
    "kind, path",
    [*((kind, "segment") for kind in HOSTILE), ("text", "pixel?x=0&y=0"), ("vast", "branches")],
)
def test_a_hostile_upload_gets_one_line(demo, monkeypatch, kind, path):
    (demo, port), (make, status, message) = demo, HOSTILE[kind]
    monkeypatch.setattr(demo.answers, "pace", 0.0)  # no machine is too slow
    got = request(port, "POST", f"/api/{path}", make())
    assert (got.status, list(got.json)) == (status, ["error"]), got
    assert message in got.json["error"] and "\n" not in got.json["error"]
    assert len(got.json["error"]) < 250


def test_an_upload_that_is_too_large(port, monkeypatch):
    got = request(port, "POST", "/api/segment", bytes(answers.MOST_BYTES + 1))
    assert (got.status, got.json["error"]) == (413, "the upload has more than 20 MiB, the limit")
    pieces = (bytes(1 << 20) for _ in range(25))  # in chunks, whose sum no header names
    got = request(port, "POST", "/api/segment", pieces)
    assert got.status == 413 and "more than 20 MiB" in got.json["error"]


def test_an_upload_that_does_not_end(port, monkeypatch):
    monkeypatch.setattr(server, "PATIENCE", 0.3)
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(b"POST /api/segment HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\nabc")
        assert line.recv(9999).startswith(b"HTTP/1.1 408")


def test_an_image_that_would_hold_others_up(demo, monkeypatch):
    demo, port = demo
    monkeypatch.setattr(demo.answers, "pace", 1e-3)
    got = request(port, "POST", "/api/segment", pillow(photo(1100, 1200), "PNG"))
    assert got.status == 413
    assert "1200 x 1100 px, which would take this machine about 22 minutes" in got.json["error"]


@pytest.mark.parametrize("query", ["", "?x=1", "?x=a&y=0", "?x=1.5&y=0", "?x=140&y=0", "?x=-1&y=0"])
def test_a_pixel_that_is_none(port, query):
    got = request(port, "POST", f"/api/pixel{query}", FILES["png"]())
    assert got.status == 400 and "pixel" in got.json["error"]


def test_the_queue_is_bounded_and_each_gets_its_own(demo, weights, monkeypatch):
    demo, port = demo
    monkeypatch.setattr(server, "MOST_HELD", 3)
    gate, segment = threading.Event(), demo.answers.segment

    def slow(data):
        gate.wait(60)
        return segment(data)

    monkeypatch.setattr(demo.answers, "segment", slow)
    data, found = [scene(seed) for seed in range(3)], {}
    threads = [
        threading.Thread(target=lambda k=k: found.update({k: ask(port, data[k])})) for k in range(3)
    ]
    for thread in threads:
        thread.start()
    wait_for(lambda: demo.held == 3)
    got = ask(port, scene(9))
    assert got.status == 503 and got.headers["retry-after"] == "3"
    assert got.json["error"] == "3 images wait already; try again soon"
    gate.set()
    for thread in threads:
        thread.join()
    predict = Predictor(weights, "cpu")
    for k, one in enumerate(data):
        assert found[k].parts["ids"] == predict(decode_image(one, "scene")).mask.tobytes()
    assert demo.held == 0


def ask(port, data):
    return request(port, "POST", "/api/segment", data)


def wait_for(condition):
    for _ in range(1000):
        if condition():
            return
        threading.Event().wait(0.01)
    raise AssertionError("it did not come")


def test_who_leaves_is_not_computed(demo, monkeypatch):
    demo, port = demo
    gate, seen = threading.Event(), []

    def slow(data):
        seen.append(data)
        gate.wait(60)
        return answers.packed({})

    monkeypatch.setattr(demo.answers, "segment", slow)
    first = threading.Thread(target=lambda: ask(port, b"first"))
    first.start()
    wait_for(lambda: seen == [b"first"])
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(b"POST /api/segment HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\ngone")
        wait_for(lambda: demo.held == 2)
    gate.set()
    first.join()
    wait_for(lambda: demo.held == 0)
    assert seen == [b"first"]


def test_a_fault_of_ours_is_no_answer_of_anybody(demo, monkeypatch):
    demo, port = demo

    def broken(data):
        raise ZeroDivisionError("with a secret")

    monkeypatch.setattr(demo.answers, "segment", broken)
    got = ask(port, scene(1))
    assert (got.status, got.json) == (500, {"error": "the server failed (ZeroDivisionError)"})
    assert got.headers["x-content-type-options"] == "nosniff" and demo.held == 0

    def out_of_memory(data):
        raise MemoryError

    monkeypatch.setattr(demo.answers, "segment", out_of_memory)
    got = ask(port, scene(1))
    assert got.status == 413 and "not enough memory" in got.json["error"]


PATHS = ["/", "/app.js", "/base.css", "/examples/0.png", "/api/model", "/nowhere", "/api/segment"]


@pytest.mark.parametrize("path", PATHS)
def test_every_response_has_the_headers(port, path):
    got = request(port, "GET", path)
    assert got.status == {"/nowhere": 404, "/api/segment": 405}.get(path, 200)
    for name, value in server.HEADERS.items():
        assert got.headers[name] == value
    assert "unsafe" not in got.headers["content-security-policy"]
    assert "access-control-allow-origin" not in got.headers and "set-cookie" not in got.headers


@pytest.mark.parametrize(
    "path",
    [
        "/../server.py",
        "/static/../../server.py",
        "/..%2fserver.py",
        "/%2e%2e/%2e%2e/pyproject.toml",
        "//etc/passwd",
        "/examples/../../server.py",
        "/examples/9.png",
        "/index.html%00.png",
    ],
)
def test_no_path_leads_out(port, path):
    got = request(port, "GET", path)
    assert (got.status, got.json) == (404, {"error": "Not Found"})


def test_wrong_methods(port):
    for method, path in (("POST", "/"), ("DELETE", "/api/segment"), ("PUT", "/api/model")):
        got = request(port, method, path, b"x")
        assert (got.status, got.json) == (405, {"error": "Method Not Allowed"})
    with socket.create_connection(("127.0.0.1", port)) as line:
        line.sendall(b"nonsense\r\n\r\n")
        assert line.recv(999).startswith(b"HTTP/1.1 400")


def test_the_page_fetches_nothing_of_others(port):
    for name in ("/", "/app.js", "/camera.js", "/panels.js", "/picture.js", "/server.js"):
        text = request(port, "GET", name).parts["body"].decode()
        assert not re.findall(r"https?://|//cdn|style=|onclick=\"", text), name
    examples = [request(port, "GET", f"/examples/{k}.png") for k in range(3)]
    assert [e.headers["content-type"] for e in examples] == ["image/png"] * 3


def test_weights_without_branches(tmp_path):
    with served(tiny_weights(tmp_path / "fcn.safetensors", "fcn")) as (demo, port):
        assert request(port, "GET", "/api/model").json["why_not"].startswith("only a CFN")
        assert ask(port, scene(1)).status == 200
        for path in ("pixel?x=0&y=0", "branches"):
            got = request(port, "POST", f"/api/{path}", scene(1))
            assert got.status == 400 and "only a CFN's branches" in got.json["error"]


def test_large_images_go_through_windows(weights, monkeypatch):
    ours = Answers(weights, "cpu")
    monkeypatch.setattr(ours, "pace", 0.0)
    data = pillow(photo(1500, 1500), "PNG")
    with pytest.raises(answers.TooLarge, match="in one pass"):
        ours.branches(data)


def test_addresses(weights, capsys):
    with server.listening("127.0.0.1", 0) as ear:
        port = ear.getsockname()[1]
        with pytest.raises(UserError, match=rf"127.0.0.1, port {port} .*in use.*--port 0"):
            server.listening("127.0.0.1", port)
    for host, number in (("no.such.host.invalid", 0), ("192.0.2.7", 0)):
        with pytest.raises(UserError, match=f"cannot listen at {host}"):
            server.listening(host, number)
    with pytest.raises(UserError, match="port 70000 is none") as error:
        server.listening("127.0.0.1", 70000)
    assert error.value.code == 2
    assert server._addresses("::1", 80) == ["http://[::1]:80"]
    assert server._addresses("0.0.0.0", 80)[0] == "http://127.0.0.1:80"


def test_without_the_packages_it_is_one_line(tmp_path):
    code = (
        "import sys; sys.modules['starlette.applications'] = None; "
        "sys.argv = ['cfnseg', 'demo', 'x']; "
        "from cfnseg.cli import main; main()"
    )
    done = run_tool("-c", code)
    assert done.returncode == 1
    assert done.stderr == ('error: the demo needs more packages: pip install "cfnseg[demo]"\n')
