"""The panel in a real browser: readable with 200 calls, in light and in dark."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest

from tests.debugtoolbar.apps import site
from tests.observe.apps import imported
from tests.servers import missing

CALLS = 200


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None:
        pass


def busy(request: Any) -> str:
    """Use the session, and call the cache 200 times."""
    request.session["visits"] = request.session.get("visits", 0) + 1
    request.cache.set("hunter2", "a value")
    for number in range(CALLS - 2):
        request.cache.get("hunter2" if number % 50 == 0 else f"hunter2 {number}")
    request.cache.client.raw_get("hunter2")
    return "done"


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """Serve an application with the toolbar, and yield its URL."""
    settings = {
        "kvs.cache": {"kvs": "memory"},
        "kvs.session": {"kvs": "memory"},
        "kvs.ratelimit": [{"limit": 100}, {"limit": 9, "window": 60, "by": "address"}],
    }
    app = site(settings, busy).app
    with make_server("127.0.0.1", 0, app, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join(60)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Start Chromium without a window."""
    webdriver = imported("selenium.webdriver")
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        missing("the browser tests need chromium and chromedriver")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    profile = tmp_path_factory.mktemp("profile")
    for argument in (
        *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
        *(f"--user-data-dir={profile}", "--window-size=1400,1000", "--no-proxy-server"),
    ):
        options.add_argument(argument)
    service = webdriver.ChromeService(executable_path=driver)
    found = webdriver.Chrome(options=options, service=service)
    try:
        yield found
    finally:
        found.quit()


def open_panel(browser: Any, url: str, scheme: str) -> None:
    """Visit the page, go to its toolbar, and click on the tab of the panel."""
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(url)
    link = browser.find_element("id", "pShowToolBarButton").get_attribute("href")
    browser.get(link)
    browser.find_element("css selector", "#pDebugPanel-kvs a").click()
    _wait(browser, lambda: browser.find_element("id", "kvs-calls").is_displayed())


def _wait(browser: Any, condition: Any) -> None:
    from selenium.webdriver.support.wait import WebDriverWait

    WebDriverWait(browser, 60).until(lambda _: condition())


#: Returns the smallest contrast of words in the panel with what is behind it, by WCAG.
CONTRAST = """
function rgb(color) {
  const found = color.match(/[0-9.]+/g).map(Number);
  return found.length == 4 && found[3] == 0 ? null : found;
}
function behind(element) {
  for (; element; element = element.parentElement) {
    const color = rgb(getComputedStyle(element).backgroundColor);
    if (color) return color;
  }
  return [255, 255, 255];
}
function light(color) {
  const [r, g, b] = color.slice(0, 3).map(v => {
    v /= 255;
    return v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
let least = 21;
for (const element of document.querySelectorAll(".kvs-panel *")) {
  if (!element.textContent.trim() || element.tagName == "STYLE") continue;
  const one = light(rgb(getComputedStyle(element).color)), other = light(behind(element));
  least = Math.min(least, (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05));
}
return least;
"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_200_calls_stay_readable(browser: Any, url: str, scheme: str, tmp_path: Path) -> None:
    open_panel(browser, url, scheme)
    if folder := os.environ.get("SCREENSHOTS"):
        browser.save_screenshot(f"{folder}/panel-{scheme}.png")
    table = browser.find_element("id", "kvs-calls")
    assert len(table.find_elements("css selector", "tbody tr")) > CALLS
    box = browser.find_element("class name", "kvs-scroll")
    assert 100 < box.size["height"] < 600 < table.size["height"]
    # The whole width is visible, and the summary is above the table.
    assert browser.execute_script("return arguments[0].scrollWidth", box) <= box.size["width"]
    summary = browser.find_element("id", "kvs-summary")
    assert summary.location["y"] < box.location["y"]
    assert browser.execute_script(CONTRAST) >= 4.5


def test_the_heading_of_the_calls_stays_visible_and_the_last_call_can_be_reached(
    browser: Any, url: str
) -> None:
    open_panel(browser, url, "light")
    box = browser.find_element("class name", "kvs-scroll")
    browser.execute_script("arguments[0].scrollTop = arguments[0].scrollHeight", box)
    heading = box.find_element("css selector", "thead th")
    last = box.find_element("css selector", "tbody tr:last-child")
    top = browser.execute_script("return arguments[0].getBoundingClientRect().top", box)
    for element in (heading, last):
        place = browser.execute_script("return arguments[0].getBoundingClientRect().top", element)
        assert top - 1 <= place < top + box.size["height"]


def test_a_developer_finds_the_answers(browser: Any, url: str) -> None:
    """Which session, which limits, and which calls were superfluous."""
    open_panel(browser, url, "light")
    browser.find_element("css selector", "#pDebugPanel-kvs a").click()
    assert "calls" in browser.find_element("id", "pDebugPanel-kvs").text
    shown = browser.find_element("class name", "kvs-panel").text
    assert "The store had the session. The request saved it." in shown
    assert "kvs.cache: 1 key was read more than once, up to 5 times." in shown
    assert "9 in 60 s" in shown
    assert "hunter2" not in shown
