"""The demo in Chromium, on memory and redis. No page is loaded again while its figures change."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.demo.browsers import Browser, driver, other_driver
from tests.demo.conftest import Demo, need_store

__all__ = ["driver", "other_driver"]

from demo.pages import PAGES  # isort: skip


@pytest.fixture(scope="module", params=["memory", "redis"])
def demo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Demo]:
    """The demo on one store, for all tests of this module."""
    need_store(request.param)
    folder: Path = tmp_path_factory.mktemp("demo")
    started = Demo(folder, request.param)
    try:
        yield started.wait()
    finally:
        started.process.terminate()
        started.process.wait(60)


@pytest.fixture
def browser(driver: Any, demo: Demo) -> Browser:
    return Browser(driver, demo.address).cleared()


@pytest.fixture
def other_browser(other_driver: Any, demo: Demo) -> Browser:
    return Browser(other_driver, demo.address).cleared()


#: A machine that stops for ten seconds makes a value stale, or lets a window end.
ATTEMPTS = 3


def test_every_page_works_with_its_policy_and_fits_a_phone(browser: Browser) -> None:
    browser.driver.set_window_size(500, 900)  # the least that Chromium takes
    browser.errors()
    for page in PAGES:
        browser.open(page.PATH)
        assert browser.title == page.TITLE
        wide, room = browser.driver.execute_script(
            "const page = document.documentElement; return [page.scrollWidth, page.clientWidth]"
        )
        assert wide <= room
    browser.driver.set_window_size(1280, 1000)
    assert browser.errors() == []


def test_a_cached_value_ages(browser: Browser) -> None:
    browser.open("/cache")
    browser.click("delete")
    browser.wait_for("number", "none")
    browser.click("once")
    browser.wait_for("answer", "Computed, after")
    browser.wait(lambda: browser.text("freshness") in ("fresh", "stale"), "a value")
    number, age = browser.text("number"), browser.number("age")
    left = float(browser.find("life").get_attribute("aria-valuenow"))
    browser.wait(lambda: browser.number("age") > age, "a greater age")
    browser.wait(
        lambda: float(browser.find("life").get_attribute("aria-valuenow")) < left, "a shorter bar"
    )
    assert browser.text("number") == number
    browser.wait_for("freshness", "stale")


def test_one_of_ten_computes(browser: Browser) -> None:
    browser.open("/cache")
    for _ in range(ATTEMPTS):
        browser.click("delete")
        browser.wait_for("number", "none")
        browser.click("ten")
        browser.wait_for("answer", " of 10 computed it. The others had it after")
        if browser.number("answer") == 1:
            return
    pytest.fail(browser.text("answer"))


def test_two_windows_have_one_session(browser: Browser) -> None:
    browser.open("/session")
    first = browser.driver.current_window_handle
    browser.driver.switch_to.new_window("window")
    browser.open("/session")
    browser.driver.find_element("css selector", "[data-item=Honey]").click()
    browser.wait_for("message", "Honey is in the cart.")
    browser.driver.close()
    browser.driver.switch_to.window(first)
    browser.wait_for("cart", "Honey")
    before = browser.text("id")
    browser.click("new-id")
    browser.wait(lambda: browser.text("id") not in ("", before), "another id")
    assert browser.text("cart") == "Honey"
    browser.click("end")
    browser.wait_for("id", "no session yet")
    assert browser.text("cart") == ""


def test_ten_tabs(browser: Browser) -> None:
    browser.open("/tabs")
    browser.click("run")
    browser.wait_for("merge", "10 of 10")
    browser.wait_for("overwrite", " of 10")
    kept = re.fullmatch(r"(\d+) of 10", browser.text("overwrite"))
    assert kept
    assert 1 <= int(kept[1]) < 10
    assert len(browser.driver.find_elements("css selector", "#merge-tabs .good")) == 10
    lost = browser.driver.find_elements("css selector", "#overwrite-tabs .bad")
    assert len(lost) == 10 - int(kept[1])


def test_limits_refill(browser: Browser) -> None:
    browser.open("/limits")
    browser.wait_for("gcra-left", "10")
    browser.click("send12")
    for strategy in ("fixed-window", "sliding-window", "gcra"):
        browser.wait(
            lambda name=strategy: browser.number(f"{name}-left") < 8, f"{strategy} is used"
        )
    for strategy, most in (("gcra", 3), ("fixed-window", 10), ("sliding-window", 1)):
        browser.wait(
            lambda name=strategy, most=most: browser.number(f"{name}-left") >= most,
            f"{strategy} refills",
        )
    assert browser.find("fixed-window").get_attribute("aria-valuenow") == "10"


def test_exactly_ten_of_twelve_pass(browser: Browser) -> None:
    for _ in range(ATTEMPTS):
        browser.cleared()
        browser.open("/session")
        browser.driver.find_element("css selector", "[data-item=Tea]").click()
        browser.wait_for("cart", "Tea")  # limits count by session, and this one is new
        browser.open("/limits")
        browser.click("burst")
        browser.wait_for("passed", " of 12 passed.")
        if "10 of 12 passed. Retry after " in browser.text("passed"):
            return
    pytest.fail(browser.text("passed"))


def test_a_refused_visitor_finds_the_way_back(browser: Browser) -> None:
    browser.open("/limits")
    browser.click("limited")
    for _ in range(20):
        if browser.title == "Too many requests":
            break
        browser.click("again")
    assert browser.title == "Too many requests"
    wait = browser.number("seconds")
    assert 0 < wait <= 20
    browser.wait(lambda: browser.number("seconds") < wait, "less to wait")
    browser.click("back")
    browser.wait(lambda: browser.title == "Limits", "the way back")
    for page in PAGES:
        browser.open(page.PATH)
        assert browser.title == page.TITLE
    browser.open("/limits/page")
    if browser.title == "Too many requests":
        browser.wait_for("seconds", "Now")
        browser.click("again")
    browser.wait(lambda: browser.title == "A limited page", "the page after the wait")


def test_log_out_everywhere(browser: Browser, other_browser: Browser) -> None:
    both = (browser, other_browser)
    for one in both:
        one.open("/login")
        one.wait_for("event", "You are not logged in.")
        one.click("log-in")
        one.wait_for("event", "You are logged in as zoe.")
    for one in both:
        one.wait_for("count", "You are logged in with 2 browsers.")
    browser.click("log-out-everywhere")
    browser.wait_for("event", "You are logged out everywhere: 2 ended.")
    other_browser.wait_for("event", "Another browser has ended your session: you are logged out.")
    for one in both:
        assert one.find("out").is_displayed()
        assert not one.find("in").is_displayed()


def test_log_out_another_browser(browser: Browser, other_browser: Browser) -> None:
    for one in (browser, other_browser):
        one.open("/login")
        one.click("log-in")
        one.wait_for("event", "You are logged in as zoe.")
    end_other = '[aria-label="End another one"]'
    browser.wait(lambda: browser.driver.find_element("css selector", end_other), "the other one")
    browser.driver.find_element("css selector", end_other).click()
    other_browser.wait_for("event", "Another browser has ended your session: you are logged out.")
    browser.wait_for("count", "You are logged in with one browser.")


def test_record(browser: Browser) -> None:
    browser.open("/record")
    browser.click("add")
    browser.wait_for("session-data", '"notes": ["Buy tea"]')
    browser.wait_for("cache-data", '{"note": "Buy tea", "number": 1}')
    left = browser.number("cache-ttl")
    browser.wait(lambda: browser.number("cache-ttl") < left, "a shorter time to live")
    cookie = browser.driver.get_cookie("demo_session")
    assert cookie["httpOnly"]
    assert cookie["value"] not in browser.driver.page_source


def test_perl(browser: Browser) -> None:
    browser.open("/perl")
    browser.click("log-in")
    browser.wait_for("values", '"visits": 41')
    browser.click("visit")
    browser.wait_for("values", '"visits": 42')
    marked = browser.driver.find_elements("css selector", "#bytes mark")
    changed = "".join("".join(mark.text.split()) for mark in marked)
    assert b"een_by".hex() in changed  # the first byte is in the line before
    assert b"tea".hex() not in changed


@pytest.mark.parametrize(("action", "word"), [("stop", "stopped"), ("pause", "hanging")])
def test_outage_and_return(browser: Browser, demo: Demo, action: str, word: str) -> None:
    browser.open("/outage")
    browser.wait_for("state", "running")
    browser.wait_for("session-detail", "visit ")
    if "own redis" not in demo.text:
        assert "docs/demo/run redis" in browser.text("memory")
        assert not browser.find("controls").is_displayed()
        return

    browser.click(action)
    browser.wait_for("state", word)
    browser.wait_for("session", "503, with Retry-After: ")
    browser.wait_for("cache", "not in the store: computed")
    browser.wait_for("limit", "passed, but not counted")
    browser.wait_for("health", "503")
    strip = "#session-strip .bad"
    browser.wait(lambda: browser.driver.find_elements("css selector", strip), "a bad request")
    browser.open("/session")
    browser.wait_for("notice", "The store is unavailable, so this page gets 503.")
    browser.open("/outage")
    browser.click("start")
    browser.wait_for("state", "running")
    browser.wait_for("session-detail", "visit ")
    visits = re.match(r"visit (\d+),", browser.text("session-detail"))
    assert visits
    assert int(visits[1]) > 1  # the session has survived
    browser.wait_for("limit-detail", " left, ")
    browser.wait_for("health-detail", " stores checked, ")
