"""Headless Chromium with software rendering, and what is seen in it: viewports stay small, and nothing waits for time alone."""

import io
import shutil
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from tests.support.serve import ADMIN

CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
]
TIMEOUT_MS = 60_000
"""Software rendering on a busy machine: an image that takes a second alone may take many beside other tests."""

COLOURED = 60
"""Difference of the largest and the smallest of red, green and blue: grey has none, an overlay far more."""


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium on PATH (Debian: apt install chromium)")
    with sync_playwright() as playwright:
        launched = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        yield launched
        launched.close()


@contextmanager
def signed_in(browser: Browser, address: str, *, viewport: Any, locale: str) -> Generator[Page]:
    """A page on the study list; a page error in it fails the test."""
    context = browser.new_context(viewport=viewport, locale=locale, base_url=address)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto("/")
    page.get_by_test_id("username").fill(ADMIN[0])
    page.get_by_test_id("password").fill(ADMIN[1])
    page.get_by_test_id("sign-in").click()
    page.get_by_test_id("study-row").first.wait_for()
    yield page
    context.close()
    assert errors == []


def pixels_of(png: bytes) -> NDArray[np.int16]:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), dtype=np.int16)


def saturation(pixels: NDArray[np.int16]) -> NDArray[np.int16]:
    return pixels.max(axis=-1) - pixels.min(axis=-1)


def coloured_count(pixels: NDArray[np.int16]) -> int:
    return int(np.count_nonzero(saturation(pixels) > COLOURED))


def shown_pixels(page: Page) -> NDArray[np.int16]:
    """What the viewport shows, once its image is loaded."""
    viewport = page.locator("[data-testid=viewport][data-shown=true]")
    viewport.wait_for()
    return pixels_of(viewport.screenshot())


def until_coloured(page: Page, *, coloured: bool, least: int = 50) -> NDArray[np.int16]:
    """Waits until the viewport has, or has no more, this many pixels of an overlay."""
    for _ in range(60):
        pixels = shown_pixels(page)
        if (coloured_count(pixels) > least) == coloured:
            return pixels
        page.wait_for_timeout(250)
    raise AssertionError(f"the overlay should {'be' if coloured else 'not be'} there")
