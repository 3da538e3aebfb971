"""docs/examples/web in a real browser: onnxruntime-web's mask is the weights' own."""

import http.server
import io
import shutil
import subprocess
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cfnseg.data.formats.shapes import ShapesDataset
from cfnseg.inference.predictor import Predictor
from tests.browsing import DESKTOP, screen

EXAMPLE = Path(__file__).parents[2] / "docs/examples/web"
STATE = "return document.getElementById('state').textContent"
PIXELS = """
return Object.fromEntries([...document.querySelectorAll("#legend li")].map(
  (row) => [row.textContent.replace(/ [^ ]+ %$/, ""), Number(row.dataset.pixels)]));
"""
SHOWN = """
const canvas = document.getElementById("picture");
return [canvas.width, canvas.height,
  [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]];
"""


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format, *args):
        pass


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The example as its README lines set it up, served: its address and its folder."""
    folder = tmp_path_factory.mktemp("web")
    for file in EXAMPLE.iterdir():
        if file.suffix in (".html", ".js", ".json"):
            shutil.copy(file, folder)
    if not shutil.which("npm"):
        pytest.skip("no npm on the PATH")
    installed = subprocess.run(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"],
        cwd=folder,
        capture_output=True,
        text=True,
    )
    if installed.returncode:
        pytest.skip(f"npm could not install onnxruntime-web: {installed.stderr[-200:]}")
    handler = partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/index.html", folder
        server.shutdown()


def wait(browser, script, seconds=60):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds, 0.1).until(lambda b: b.execute_script(script))


def ready(text: str) -> str:
    return f"return document.getElementById('state').textContent.includes({text!r})"


def test_without_a_model_the_page_says_so(page, browser):
    address, folder = page
    (folder / "model.onnx").unlink(missing_ok=True)
    browser.get(address)
    wait(browser, ready("could not be loaded: model.onnx: 404"))


def test_the_browser_computes_the_predictors_mask(page, browser, weights, any_size, tmp_path):
    address, folder = page
    shutil.copy(any_size, folder / "model.onnx")
    image = ShapesDataset("val").image(3)[:150, :201]  # no multiple of 32
    Image.fromarray(image).save(tmp_path / "photo.png")
    (tmp_path / "none.png").write_text("no image")
    screen(browser, DESKTOP)
    browser.get(address)
    wait(browser, ready("Choose a photograph"))
    chooser = browser.find_element("id", "photo")
    chooser.send_keys(str(tmp_path / "none.png"))
    wait(browser, ready("is no image that this browser reads"))
    chooser.send_keys(str(tmp_path / "photo.png"))
    wait(browser, ready("201 × 150 pixels in"))
    predict = Predictor(weights, "cpu")
    mask = predict(image).mask
    counts = {predict.labels.names[k]: int(n) for k, n in enumerate(np.bincount(mask.ravel())) if n}
    shown = browser.execute_script(PIXELS)
    assert shown.keys() == counts.keys()
    assert sum(abs(shown[k] - counts[k]) for k in counts) <= 2e-4 * mask.size
    browser.execute_script(
        "opacity.value = 1; opacity.dispatchEvent(new Event('input'))".replace(
            "opacity", "document.getElementById('opacity')"
        )
    )
    width, height, pixels = browser.execute_script(SHOWN)
    assert (height, width) == image.shape[:2]
    drawn = np.array(pixels, np.uint8).reshape(height, width, 4)[..., :3]
    colors = np.array([label.color for label in predict.labels.labels], np.uint8)[mask]
    assert np.mean((drawn == colors).all(-1)) >= 0.9999
    png = io.BytesIO(browser.get_screenshot_as_png())
    assert Image.open(png).size == DESKTOP
    severe = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not [entry for entry in severe if "404" not in entry["message"]]
