"""The demo's page in a real browser: what it shows is the predictor's, on a desktop and a phone."""

import base64
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

from cfnseg.data.decode import decode_image
from cfnseg.inference.pixel_parts import pixel_parts
from cfnseg.inference.predictor import Predictor
from cfnseg.models.weights import load
from tests.browsing import DESKTOP, PHONE, screen
from tests.data.odd_files import pillow
from tests.demo.serving import LABELS, request, scene, served, tiny_weights

WIDE = (1200, 900)
SHOWN = "return document.getElementById('main').dataset.state === 'result'"
LIVE = """
const video = document.querySelector("dialog[open] video");
return video !== null && video.srcObject?.active && video.videoWidth > 0;
"""
# a file that is dropped on the page: its base64, its name
DROP = """
const bytes = Uint8Array.from(atob(arguments[0]), (c) => c.charCodeAt(0));
const data = new DataTransfer();
data.items.add(new File([bytes], arguments[1]));
dispatchEvent(new DragEvent("drop", {dataTransfer: data, cancelable: true}));
"""
# a click, or a move, at shares of the picture's width and height
POINT = """
const stage = document.getElementById("stage"), box = stage.getBoundingClientRect();
stage.dispatchEvent(new PointerEvent(arguments[0], {bubbles: true, pointerType: "mouse",
  clientX: box.left + box.width * arguments[1], clientY: box.top + box.height * arguments[2]}));
"""
# the pixels of a layer, [[r, g, b, a], ...]
LAYER = """
const canvas = document.querySelector(`[data-layer=${arguments[0]}]`);
return [canvas.width, canvas.height, getComputedStyle(canvas).visibility,
  [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]];
"""


@pytest.fixture(scope="module")
def port(weights):
    with served(weights) as (_, port):
        yield port


def until(browser, script, *words, seconds=60):
    from selenium.webdriver.support.ui import WebDriverWait

    return WebDriverWait(browser, seconds, 0.1).until(
        lambda _: browser.execute_script(script, *words)
    )


def opened(browser, port, size=DESKTOP, dark=False):
    """The page on a screen; fails if its scripts log anything."""
    for kind in ("browser", "performance"):
        browser.get_log(kind)
    screen(browser, size, dark)
    browser.get(f"http://127.0.0.1:{port}/")
    until(browser, "return document.querySelectorAll('#thumbs img').length === 3")


def drop(browser, data, name):
    """Drop a file, and wait for its result."""
    browser.execute_script("document.getElementById('facts').textContent = ''")
    browser.execute_script(DROP, base64.b64encode(data).decode(), name)
    until(browser, "return document.getElementById('facts').textContent !== ''")


def text(browser, name):
    return browser.find_element("id", name).text


def legend(browser):
    rows = browser.find_elements("css selector", "#legend button")
    return [
        [row.find_element("class name", what).text for what in ("name", "share", "sure")]
        for row in rows
    ]


def table(browser):
    """The rows of the branches' parts: name and numbers."""
    until(browser, "return document.querySelector('.parts') !== null")
    rows = browser.find_elements("css selector", ".parts tbody tr")
    number = lambda cell: float(cell.text.replace("−", "-"))  # noqa: E731
    return {
        row.find_element("css selector", ".part span").text: [
            number(cell) for cell in row.find_elements("tag name", "td")
        ]
        for row in rows
    }


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("size", [PHONE, WIDE])
def test_it_fits_and_fetches_from_its_server_alone(browser, port, size, dark):
    opened(browser, port, size, dark)
    width = "return document.scrollingElement.scrollWidth"
    assert browser.execute_script(width) <= size[0]
    browser.find_element("css selector", "#thumbs button").click()
    until(browser, SHOWN)
    browser.execute_script(POINT, "click", 0.5, 0.5)
    assert len(table(browser)) == 8
    for view in ("mask", "confidence", "branches", "overlay"):
        browser.find_element("css selector", f"[data-view={view}]").click()
        if view == "branches":
            until(browser, "return document.querySelectorAll('#shares span').length === 7")
        assert browser.execute_script(width) <= size[0], view
    paper = browser.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", paper))) < 120) == dark
    assert browser.get_log("browser") == []  # no error, nothing that the policy refused
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
    ]
    assert urls and all(
        re.match(rf"(blob:)?http://127\.0\.0\.1:{port}/|about:blank", url) for url in urls
    )
    small = browser.execute_script(
        "return [...document.querySelectorAll('button, a.action')]"
        ".filter((b) => b.getClientRects().length && b.getBoundingClientRect().height < 32)"
        ".map((b) => b.textContent)"
    )
    assert small == []  # a finger hits each


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_what_it_shows_is_the_predictors(browser, port, weights, size):
    opened(browser, port, size)
    image = decode_image(scene(5, (60, 100)), "scene")
    wanted = Predictor(weights, "cpu")(image)
    drop(browser, scene(5, (60, 100)), "street.png")
    pixels = np.bincount(wanted.mask.ravel(), minlength=8)
    order = [c for c in np.argsort(-pixels, kind="stable") if pixels[c]]
    assert legend(browser) == [
        [
            LABELS.names[c],
            f"{100 * pixels[c] / 6000:.1f} %" if pixels[c] >= 3 else "<0.1 %",
            f"{np.rint(100 * wanted.confidence[wanted.mask == c].mean()):.0f} %",
        ]
        for c in order
    ]
    for x, y in ((0, 0), (31, 47), (99, 59)):
        browser.execute_script(POINT, "pointermove", (x + 0.5) / 100, (y + 0.5) / 60)
        sure = np.rint(100 * wanted.confidence[y, x])
        name = LABELS.names[wanted.mask[y, x]]
        assert text(browser, "pointed") == f"{name} {sure:.0f} % sure, at ({x}, {y})"
    width, height, seen, colors = browser.execute_script(LAYER, "classes")
    assert (width, height, seen) == (100, 60, "visible")
    shown = np.reshape(colors, (60, 100, 4))
    np.testing.assert_array_equal(shown[..., :3], LABELS.colorize(wanted.mask))
    assert (shown[..., 3] == 255).all()


def test_a_click_shows_what_each_branch_adds(browser, port, weights):
    opened(browser, port)
    data = scene(5, (60, 100))
    drop(browser, data, "street.png")
    browser.execute_script(POINT, "click", 40.5 / 100, 20.5 / 60)
    rows = table(browser)
    image = torch.from_numpy(decode_image(data, "scene")).permute(2, 0, 1)
    names, parts = pixel_parts(load(weights).model, image, 40, 20)
    best, second = (int(c) for c in np.argsort(-parts.sum(0))[:2])
    assert list(rows) == [*names, "sum = logit"]
    for name, part in zip(names, parts):
        margin = part[best] - part[second]
        np.testing.assert_allclose(rows[name], [margin, part[best], part[second]], atol=0.0051)
    last = rows.pop("sum = logit")
    np.testing.assert_allclose(np.sum(list(rows.values()), 0), last, atol=0.04)
    assert last[0] == pytest.approx(last[1] - last[2], abs=0.011)
    assert f"Why {LABELS.names[best]} at (40, 20)?" in text(browser, "why")
    top = names[int((parts[:, best] - parts[:, second]).argmax())]
    says = browser.find_element("class name", "says").text
    assert says.startswith(f"{top} speaks loudest for {LABELS.names[best]}: ")
    # another class to compare with
    third = int(np.argsort(-parts.sum(0))[2])
    browser.find_element("css selector", f".parts option[value='{third}']").click()
    margin = parts.sum(0)[best] - parts.sum(0)[third]
    assert table(browser)["sum = logit"][0] == pytest.approx(margin, abs=0.0051)
    browser.find_element("css selector", "[data-view=branches]").click()
    until(browser, "return document.querySelectorAll('#shares span').length === 7")
    assert browser.execute_script(LAYER, "branches")[:3] == [25, 15, "visible"]


def test_keys_move_the_cross(browser, port):
    from selenium.webdriver.common.keys import Keys

    opened(browser, port)
    drop(browser, scene(5, (60, 100)), "street.png")
    stage = browser.find_element("id", "stage")
    assert "Segmented image: " in stage.get_attribute("aria-label")
    stage.send_keys(Keys.ARROW_LEFT, Keys.ARROW_DOWN, Keys.SHIFT, Keys.ARROW_RIGHT)
    assert text(browser, "pointed").endswith("at (59, 31)")
    stage.send_keys(Keys.NULL, Keys.ENTER)
    table(browser)
    assert "at (59, 31)?" in text(browser, "why")


def test_one_class_alone_and_the_opacity(browser, port, weights):
    opened(browser, port)
    drop(browser, scene(5, (60, 100)), "street.png")
    mask = Predictor(weights, "cpu")(decode_image(scene(5, (60, 100)), "scene")).mask
    first = browser.find_element("css selector", "#legend button")
    first.click()
    assert first.get_attribute("aria-pressed") == "true"
    alpha = np.reshape(browser.execute_script(LAYER, "classes")[3], (60, 100, 4))[..., 3]
    np.testing.assert_array_equal(alpha == 255, mask == np.bincount(mask.ravel()).argmax())
    first.click()
    assert set(browser.execute_script(LAYER, "classes")[3][3::4]) == {255}
    browser.execute_script(
        "const r = document.querySelector('#mix input'); r.value = 20;"
        "r.dispatchEvent(new Event('input', {bubbles: true}))"
    )
    opacity = "return getComputedStyle(document.querySelector('[data-layer=classes]')).opacity"
    assert float(browser.execute_script(opacity)) == pytest.approx(0.2)
    browser.find_element("css selector", "[data-view=mask]").click()
    assert float(browser.execute_script(opacity)) == 1


def test_downloads(browser, port, weights, tmp_path):
    opened(browser, port)
    drop(browser, scene(5, (60, 100)), "my street.v2.png")
    browser.execute_cdp_cmd(
        "Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)}
    )
    for name in ("save-mask", "save-overlay"):
        browser.find_element("id", name).click()
    names = {"my street.v2_mask.png", "my street.v2_overlay.jpg"}
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(browser, 30, 0.1).until(lambda _: {p.name for p in tmp_path.iterdir()} == names)
    image = decode_image(scene(5, (60, 100)), "scene")
    file = io.BytesIO()
    LABELS.write(file, Predictor(weights, "cpu")(image).mask)
    assert (tmp_path / "my street.v2_mask.png").read_bytes() == file.getvalue()
    drawn = decode_image((tmp_path / "my street.v2_overlay.jpg").read_bytes(), "overlay")
    colors = LABELS.colorize(Predictor(weights, "cpu")(image).mask)
    wanted = 0.45 * image + 0.55 * colors
    assert drawn.shape == image.shape and abs(drawn - wanted).mean() < 6


def test_a_photo_that_lies_on_its_side(browser, port, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = decode_image(scene(5, (60, 100)), "scene")
    path = tmp_path / "turned.jpg"
    path.write_bytes(pillow(image, "JPEG", exif=exif))
    opened(browser, port)
    browser.find_element("id", "file").send_keys(str(path))
    until(browser, SHOWN)
    assert text(browser, "facts").startswith("60 × 100 px")
    size = "const i = document.querySelector('.photo'); return [i.naturalWidth, i.naturalHeight]"
    assert browser.execute_script(size) == [60, 100]


def test_the_camera(browser, port):
    opened(browser, port)
    browser.find_element("id", "shoot").click()
    until(browser, LIVE)
    browser.find_element("id", "cancel").click()
    until(browser, "return !document.getElementById('camera').open")
    assert not browser.execute_script(SHOWN)
    browser.find_element("id", "shoot").click()
    until(browser, LIVE)
    browser.find_element("id", "take").click()
    until(browser, SHOWN)
    until(browser, "return / px in/.test(document.getElementById('facts').textContent)")
    assert not browser.execute_script(LIVE)
    # over http from elsewhere there is none; the page says so
    browser.execute_script(
        "Object.defineProperty(navigator, 'mediaDevices', {value: undefined, configurable: true})"
    )
    browser.find_element("id", "shoot").click()
    assert "over https or at 127.0.0.1 alone" in text(browser, "alert")


def test_what_is_refused_is_a_line(browser, port):
    opened(browser, port)
    browser.execute_script(DROP, base64.b64encode(b"hello").decode(), "x.jpg")
    until(browser, "return !document.getElementById('alert').hidden")
    assert text(browser, "alert").startswith("The upload is no image that can be read")
    browser.get_log("browser")  # the browser notes the 400
    browser.execute_script(
        "const data = new DataTransfer();"
        "data.items.add(new File([new Uint8Array(21 << 20)], 'large.png'));"
        "dispatchEvent(new DragEvent('drop', {dataTransfer: data, cancelable: true}))"
    )
    until(browser, "return document.getElementById('alert').textContent.includes('21 MiB')")
    line, remedy = text(browser, "alert").splitlines()
    assert line == "The file has 21 MiB; at most 20 are taken." and remedy == "Send it at 1600 px"
    browser.find_element("css selector", "#alert button").click()
    until(browser, "return document.getElementById('alert').textContent.includes('cannot read')")
    assert not browser.execute_script(SHOWN) and not browser.get_log("browser")
    drop(browser, scene(5), "good.png")
    assert browser.execute_script("return document.getElementById('alert').hidden")


def test_a_large_photo_is_offered_smaller(browser, port):
    opened(browser, port)
    drop(browser, pillow(np.full((60, 2000, 3), 99, np.uint8), "PNG"), "wide.png")
    assert text(browser, "facts").startswith("2000 × 60 px")
    browser.find_element("class name", "again").click()
    until(browser, "return document.getElementById('facts').textContent.startsWith('1600 × 48 px')")
    assert not browser.find_elements("class name", "again")


def test_the_last_image_wins(browser, port):
    opened(browser, port)
    for seed, size in ((1, (160, 160)), (2, (60, 100))):
        data = base64.b64encode(scene(seed, size)).decode()
        browser.execute_script(DROP, data, f"{seed}.png")
    until(browser, "return document.getElementById('facts').textContent !== ''")
    assert text(browser, "facts").startswith("100 × 60 px")
    assert browser.execute_script("return document.getElementById('busy').hidden")


def test_weights_without_branches(browser, tmp_path):
    with served(tiny_weights(tmp_path / "fcn.safetensors", "fcn")) as (_, port):
        opened(browser, port)
        drop(browser, scene(5), "street.png")
        assert text(browser, "why").startswith("These weights show no branches: only a CFN's")
        views = browser.find_elements("css selector", "#views button")
        assert [view.text for view in views] == ["Overlay", "Mask", "Confidence"]
        browser.execute_script(POINT, "click", 0.5, 0.5)
        assert text(browser, "pointed") and browser.get_log("browser") == []


def test_who_comes_while_all_wait_comes_later(browser, port, monkeypatch):
    from cfnseg.demo import server

    opened(browser, port)
    monkeypatch.setattr(server, "MOST_HELD", 0)
    monkeypatch.setattr(server, "RETRY", "0.3")
    browser.execute_script(DROP, base64.b64encode(scene(5)).decode(), "street.png")
    until(browser, "return document.getElementById('busy').textContent.includes('Others')")
    assert request(port, "POST", "/api/segment", scene(5)).status == 503
    monkeypatch.setattr(server, "MOST_HELD", 9)
    until(browser, SHOWN)
