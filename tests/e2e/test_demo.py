"""The demo as a stranger meets it: both models run on a real head, and the results are seen in a browser.

One demo runs for all of these tests. Nothing is stood in for: images, predictions and masks come the way that production
has.
"""

import csv
import json
import os
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Browser, Page
from pydicom import dcmread

from tests.db.private_data import data_folder
from tests.support.browser import coloured_count, pixels_of, shown_pixels, signed_in, until_coloured
from tests.support.serve import Serve, wait_until

DEMO_TIMEOUT_S = 240
"""Half a minute alone on two cores; other tests run beside it."""

VIEWPORT: Any = {"width": 620, "height": 420}
OHIF_TRIES, OHIF_PAUSE_MS = 120, 500


class Demo:
    """A running `annotomy demo` and what it said."""

    def __init__(self, data: Path) -> None:
        self.serve = Serve(data, ANNOTOMY_WORKERS_INLINE="1", ANNOTOMY_HTTP_PROCESSES="1", ANNOTOMY_LANGUAGE="en")
        self.output = data / "demo.log"

    def run(self, *arguments: str) -> "Demo":
        process = self.serve.launch("demo", *arguments)
        assert process.stdout is not None
        lines: list[str] = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith(("Ctrl-C stops it", "Done.", "Error:")):
                break
        self.said = "".join(lines)
        return self

    @property
    def address(self) -> str:
        return (self.serve.data / "run" / "address").read_text().strip().rstrip("/")

    @property
    def summary(self) -> dict[str, Any]:
        return json.loads((self.serve.data / "demo" / "summary.json").read_text())


@pytest.fixture(scope="module")
def demo() -> Generator[Demo]:
    with data_folder() as data:
        running = Demo(data).run()
        try:
            assert "Ctrl-C stops it" in running.said, running.said
            yield running
        finally:
            running.serve.stop()


@pytest.fixture
def page(demo: Demo, browser: Browser) -> Generator[Page]:
    with signed_in(browser, demo.address, viewport=VIEWPORT, locale="en-US") as opened:
        yield opened


@pytest.mark.timeout(DEMO_TIMEOUT_S)
def test_the_closing_block_says_where_everything_is_and_how_good_it_is(demo: Demo) -> None:
    head, hippocampus = demo.summary["results"]
    assert demo.address in demo.said
    assert f"/viewer/{demo.summary['head_study_instance_uid']}" in demo.said
    assert f"Dice {head['dice']:.3f}" in demo.said
    assert head["dice"] >= 0.80
    assert all(2.38 <= volume <= 4.41 for volume in hippocampus["right_left_ml"])
    assert len(demo.summary["study_instance_uids"]) == 5
    for result in (head, hippocampus):
        assert result["picture"] in demo.said
        with Image.open(result["picture"]) as picture:
            pixels = np.asarray(picture.convert("RGB"), np.int16)
        assert pixels.max() > 200
        assert coloured_count(pixels) > 500, "the picture has no overlay"


def test_the_head_opens_at_its_segmentation_in_colour(demo: Demo, page: Page) -> None:
    row = page.get_by_test_id("study-row").filter(has_text="MNI152 T1 head")
    row.get_by_test_id("open-study").click()
    pixels = until_coloured(page, coloured=True, least=150)
    assert pixels.max() > 200, "the image is black"
    assert _of_colour(pixels, orange=True) > 50, "the anterior hippocampus is orange"
    assert _of_colour(pixels, orange=False) > 50, "the posterior hippocampus is blue"
    assert page.get_by_test_id("slice").inner_text() != "95 / 189", "it opened at the middle, not at the result"
    # Away from it there is none, and the way back is one click.
    page.keyboard.press("End")
    until_coloured(page, coloured=False)
    page.get_by_test_id("go-to-segment").first.click()
    until_coloured(page, coloured=True, least=50)
    page.get_by_test_id("segmentation-visibility").first.click()
    pixels = until_coloured(page, coloured=False)
    assert pixels.max() > 200, "only the overlay goes"


def test_samples_of_other_kinds_are_shown(demo: Demo, page: Page) -> None:
    for name in ("PANCREAS_0001", "CompressedSamples RG3", "PLA", "Sssssss Jsssss"):
        page.goto("/")
        page.get_by_test_id("study-row").filter(has_text=name).get_by_test_id("open-study").click()
        assert shown_pixels(page).max() > 100, f"{name} is black"


def test_the_study_list_has_a_picture_of_each_study(demo: Demo, page: Page) -> None:
    pictures = page.get_by_test_id("study-row").locator("img")
    assert pictures.count() == 5
    page.wait_for_function(
        "() => [...document.querySelectorAll('[data-testid=study-row] img')].every((one) => one.naturalWidth > 10)"
    )


def test_ohif_shows_the_dicom_seg_in_colour(demo: Demo, page: Page) -> None:
    head, hippocampus = demo.summary["head_study_instance_uid"], demo.summary["results"][1]
    series = hippocampus["seg_series_instance_uid"]
    page.goto(f"/ohif/viewer?StudyInstanceUIDs={head}&initialSeriesInstanceUID={series}")
    canvas = page.locator(".cornerstone-canvas").first
    canvas.wait_for()
    for _ in range(OHIF_TRIES):
        pixels = pixels_of(canvas.screenshot())
        if pixels.max() > 200 and coloured_count(pixels) > 20:
            return
        page.wait_for_timeout(OHIF_PAUSE_MS)
    raise AssertionError("OHIF does not show the segmentation")


def test_the_api_is_described_on_a_page_without_outside_assets(demo: Demo, page: Page) -> None:
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto("/docs")
    page.get_by_text("segmentations", exact=True).first.wait_for()
    outside = [url for url in asked if not url.startswith((demo.address, "data:"))]
    assert outside == []


@pytest.mark.parametrize("form", ["nifti", "seg", "csv"])
def test_the_results_are_exported_from_the_command_line(demo: Demo, tmp_path: Path, form: str) -> None:
    arguments = ["export", "--study", demo.summary["head_study_instance_uid"], "--to", str(tmp_path), "--format", form]
    environment = os.environ | {"ANNOTOMY_DATA": str(demo.serve.data)}
    subprocess.run([sys.executable, "-m", "annotomy.cli", *arguments], env=environment, check=True, timeout=120)
    files = sorted(tmp_path.iterdir())
    if form == "csv":
        rows = list(csv.DictReader(files[0].open()))
        assert {row["label"] for row in rows} == {"Brain", "Anterior hippocampus", "Posterior hippocampus"}
    elif form == "seg":
        assert {str(dcmread(file).Modality) for file in files} == {"SEG"}
        assert len(files) == 2
    else:
        masks = [np.asarray(nib.load(file).dataobj) for file in files]  # pyright: ignore[reportAttributeAccessIssue]
        assert all(mask.any() for mask in masks)
        assert len(masks) == 2


@pytest.mark.timeout(DEMO_TIMEOUT_S)
def test_a_second_start_finds_everything_and_ends_when_told_to() -> None:
    with data_folder() as data:
        first = Demo(data).run("--once")
        assert first.serve.wait() == 0, first.said
        before = first.summary
        second = Demo(data).run("--once")
        assert second.serve.wait() == 0, second.said
        assert "from an earlier start" in second.said
        assert "Asked the model" not in second.said
        assert second.summary == before
        wait_until(lambda: list((data / "run").glob("*.pid")) == [], "all processes are gone")


def _of_colour(pixels: NDArray[np.int16], *, orange: bool) -> int:
    red, blue = pixels[..., 0], pixels[..., 2]
    return int(np.count_nonzero(red - blue > 60 if orange else blue - red > 60))
