"""A browser for tests of pages; where there is none, they are skipped."""

import contextlib
import shutil
import time

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@contextlib.contextmanager
def chromium():
    """Starts Chromium without a window."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine; apt-get install chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


def until(page, condition):
    """Waits for a condition; the page's own rules keep the browser from waiting by itself."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, page.inner_text("body")
        page.wait_for_timeout(20)
