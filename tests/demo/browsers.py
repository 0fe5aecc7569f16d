"""Chromium without a window, which the tests drive with selenium."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.servers import missing, need

PATIENCE = 60


class Browser:
    """A Chromium with its own profile, on one demo."""

    def __init__(self, driver: Any, address: str) -> None:
        self.driver = driver
        self.address = address

    def cleared(self) -> Browser:
        """Leave the page, and forget all cookies and errors."""
        self.driver.get("about:blank")
        self.driver.execute_cdp_cmd("Network.clearBrowserCookies", {})
        self.errors()
        return self

    def open(self, path: str) -> None:
        self.driver.get(self.address + path)

    def click(self, element_id: str) -> None:
        """Click an element as soon as the page shows it."""
        self.wait(lambda: self.find(element_id).is_displayed(), f"#{element_id}")
        self.find(element_id).click()

    def find(self, element_id: str) -> Any:
        return self.driver.find_element("id", element_id)

    def text(self, element_id: str) -> str:
        return str(self.find(element_id).text)

    def number(self, element_id: str) -> float:
        """Return the number at the start of an element."""
        return float(self.text(element_id).split()[0])

    @property
    def title(self) -> str:
        return str(self.driver.find_element("tag name", "h1").text)

    def wait(self, condition: Callable[[], Any], what: str) -> Any:
        """Wait until a condition holds; a page that changes at this moment counts as not yet."""
        from selenium.common.exceptions import WebDriverException
        from selenium.webdriver.support.wait import WebDriverWait

        wait = WebDriverWait(
            self.driver,
            PATIENCE,
            poll_frequency=0.1,
            ignored_exceptions=(WebDriverException, ValueError, IndexError),
        )
        return wait.until(lambda driver: condition(), what)

    def wait_for(self, element_id: str, text: str) -> None:
        """Wait until this text is in an element."""
        try:
            self.wait(lambda: text in self.text(element_id), f"{text!r} in #{element_id}")
        except Exception as error:
            raise AssertionError(f"{error}: found {self.text(element_id)!r}") from error

    def errors(self) -> list[str]:
        """Return the errors that the console has shown since the last call."""
        log = self.driver.get_log("browser")
        return [entry["message"] for entry in log if entry["level"] == "SEVERE"]


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """Start a Chromium with a new profile."""
    path, driver_path = need("chromium"), need("chromedriver")
    try:
        from selenium import webdriver
    except ImportError:
        missing("selenium is not installed: pip install selenium")
    options = webdriver.ChromeOptions()
    options.binary_location = path
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (
        "headless=new",
        "disable-gpu",
        "disable-dev-shm-usage",
        "window-size=1280,1000",
    ):
        options.add_argument(f"--{argument}")
    if os.geteuid() == 0:
        options.add_argument("--no-sandbox")
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_path))
    try:
        driver.set_page_load_timeout(PATIENCE)
        yield driver
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def driver() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def other_driver() -> Iterator[Any]:
    with chromium() as started:
        yield started
