"""A real browser, and what tests of pages do with it."""

import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import waiting


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("Chromium is not installed; Debian's packages are called chromium and chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1600,1000"):
        options.add_argument(flag)
    made = webdriver.Chrome(options, webdriver.ChromeService(driver))
    yield made
    made.quit()


def wait(for_what: Callable[[], bool], browser: Any, name: str) -> None:
    """Wait until a page shows something, and keep a picture of it where RUNNER_SCREENSHOTS says."""
    deadline = time.monotonic() + waiting.SECONDS
    while not for_what():
        assert time.monotonic() < deadline, f"{name}: {browser.find_element('tag name', 'body').text}"
        time.sleep(0.2)
    folder = os.environ.get("RUNNER_SCREENSHOTS")
    if folder:
        time.sleep(3)  # drawings are animated
        browser.save_screenshot(str(Path(folder) / f"{name}.png"))


def close_assistant(browser: Any) -> None:
    """Close the assistant of MLflow's pages, which lies over half of them, where it is open."""
    for button in browser.find_elements("css selector", "[aria-label=Close]"):
        button.click()
