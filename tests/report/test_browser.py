"""The report in a real browser: it sorts, toggles, fits, follows the scheme, fetches nothing."""

import json
import re

import pytest
from test_segmentation_report import LABELS, evaluation, pictures

from cfnseg.data.labels import Label, LabelMap
from cfnseg.report.segmentation_report import write_report
from tests.browsing import DESKTOP, PHONE, screen

# what the screen says about the page; colours as "rgb(r, g, b)"
LOOK = """
const seen = (element) => element.getClientRects().length > 0;
return {width: document.scrollingElement.scrollWidth,
  paper: getComputedStyle(document.body).backgroundColor,
  ink: getComputedStyle(document.body).color,
  empty: [...document.querySelectorAll("img")]
    .filter((img) => !img.complete || !img.naturalWidth).length,
  cells: [...document.querySelectorAll(".heatmap text")].filter(seen)
    .map((text) => text.textContent),
  shown: [...document.querySelectorAll(".stack img:not(.photo)")]
    .filter((img) => getComputedStyle(img).visibility === "visible")
    .map((img) => img.className)};
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of every section."""
    folder, found = tmp_path_factory.mktemp("report"), pictures(9)
    write_report(folder, evaluation(found), LABELS, found.__getitem__)
    return folder / "report.html"


def opened(browser, page, size, dark=False):
    """`LOOK` on a screen of ``size`` in CSS pixels; fails if the page fetches or logs anything."""
    from selenium.webdriver.common.by import By

    for kind in ("browser", "performance"):
        browser.get_log(kind)
    screen(browser, size, dark)
    browser.get(page.as_uri())
    assert (
        browser.get_log("browser") == []
    )  # no error of the script, nothing that the page's policy refused
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    fetched = [
        m["params"]["request"]["url"]
        for m in messages
        if m["method"] == "Network.requestWillBeSent"
    ]
    assert fetched and all(url.startswith("data:") or url == page.as_uri() for url in fetched)
    assert (
        browser.find_element(By.CSS_SELECTOR, "meta[http-equiv]")
        .get_attribute("content")
        .startswith("default-src 'none'")
    )
    return browser.execute_script(LOOK)


def press(browser, *buttons):
    for selector in buttons:
        browser.execute_script("document.querySelector(arguments[0]).click()", selector)
    return browser.execute_script(LOOK)


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_it_fits_and_follows_the_scheme(browser, page, size):
    light, dark = opened(browser, page, size), opened(browser, page, size, dark=True)
    for look in (light, dark):
        assert look["width"] <= size[0] and look["empty"] == 0
    assert (
        light["paper"] == "rgb(255, 255, 255)"
        and sum(map(int, re.findall(r"\d+", dark["paper"]))) < 120
    )
    assert sum(map(int, re.findall(r"\d+", dark["ink"]))) > 600
    assert [h.text for h in browser.find_elements("tag name", "h2")] == [
        "Classes",
        "Images",
        "Confusion",
        "Boundaries, sizes and calibration",
        "Details",
    ]


def test_a_heading_sorts(browser, page):
    opened(browser, page, DESKTOP)

    def column(n):
        return browser.execute_script(
            "const body = document.querySelector('table.sortable tbody');"
            "return [...body.rows].map((row) => Number(row.cells[arguments[0]].dataset.value))",
            n,
        )

    assert column(0) == [0, 1, 2, 3, 4]
    for n in (1, 2, 6):
        heading = f"table.sortable thead th:nth-child({n + 1}) button"
        press(browser, heading)
        assert column(n) == sorted(column(n), reverse=True) and column(0) != [0, 1, 2, 3, 4]
        press(browser, heading)
        assert column(n) == sorted(column(n))
    press(browser, "table.sortable thead th:first-child button")
    assert column(0) == [0, 1, 2, 3, 4]


def test_tables_say_that_they_scroll(browser, page):
    hints = """return [...document.querySelectorAll(".swipe")]
      .filter((hint) => hint.getClientRects().length)
      .map((hint) => [hint, hint.nextElementSibling])
      .map(([hint, box]) => [hint.textContent.trim(), box.scrollWidth > box.clientWidth]);"""
    opened(browser, page, PHONE)
    found = browser.execute_script(hints)
    assert found[0] == ["Swipe sideways for more columns →", True] and all(
        scrolls for _, scrolls in found
    )
    opened(browser, page, DESKTOP)
    assert browser.execute_script(hints) == []


@pytest.mark.parametrize("size", [PHONE, DESKTOP])
def test_views_toggle(browser, page, size):
    assert opened(browser, page, size)["shown"] == ["prediction"] * 8
    for view in ("truth", "errors", "prediction"):
        assert press(browser, f".gallery .views [data-view={view}]")["shown"] == [view] * 8
    assert press(browser, ".gallery .views [data-view=image]")["shown"] == []
    press(browser, ".gallery .views [data-view=prediction]")
    assert (
        press(browser, ".stack")["shown"] == ["errors"] + ["prediction"] * 7
    )  # a tap steps one image on
    shares = opened(browser, page, size)["cells"]
    counts = press(browser, ".confusion [data-mode=count]")["cells"]
    assert (
        len(shares) == len(counts) == 16
        and all(int(text) <= 100 for text in shares)
        and all("k" in c or int(c) > 100 for c in counts)
    )
    assert press(browser, ".confusion [data-mode=share]")["cells"] == shares


def test_a_cell_says_its_numbers(browser, page):
    opened(browser, page, PHONE)
    browser.execute_script(
        "document.querySelector('.heatmap g').dispatchEvent(new Event('click', {bubbles: true}))"
    )
    assert re.match(
        r"road as road: [\d,]+ px, [\d.]+ % of the row",
        browser.find_element("css selector", ".readout").text,
    )


def test_many_classes_fit(browser, tmp_path):
    found = pictures(4, 270, 480, 150)
    labels = LabelMap(
        [Label(i, f"a class of some name {i}", (i, 255 - i, 128)) for i in range(150)]
    )
    write_report(tmp_path, evaluation(found, 150, model=False), labels, found.__getitem__)
    look = opened(browser, tmp_path / "report.html", PHONE)
    assert look["width"] <= PHONE[0] and look["empty"] == 0
