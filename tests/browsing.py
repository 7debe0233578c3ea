"""A real browser for pages: Debian's Chromium, driven by playwright."""

import contextlib
import shutil
import time
from collections.abc import Iterator

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine; apt-get install chromium"
)
_ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


@contextlib.contextmanager
def open_browser() -> Iterator:
    """Yields a playwright browser; skips the test where playwright is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=_ARGUMENTS)
        yield browser
        browser.close()


@contextlib.contextmanager
def open_page(browser, *, width: int, height: int) -> Iterator:
    """Yields a page of its own context, in which no script may have failed at the end."""
    context = browser.new_context(viewport={"width": width, "height": height})
    page, errors = context.new_page(), []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert errors == []


def until(page, condition) -> None:
    """Waits for a condition; the page's own rules keep the browser from waiting by itself."""
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, page.inner_text("body")
        page.wait_for_timeout(20)
