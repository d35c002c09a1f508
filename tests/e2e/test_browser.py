"""Somebody signs in, opens a study and sees the image with its segmentation; and the same study in OHIF.

Headless Chromium with software rendering: viewports stay small, and waiting is for what the page says, not for time.
"""

import json
import struct
from collections.abc import Generator
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from annotomy.http.static_files import STATIC
from tests.support.browser import TIMEOUT_MS, pixels_of, saturation, shown_pixels, signed_in, until_coloured
from tests.support.dicom_files import ct_series
from tests.support.serve import ADMIN, Serve

pytestmark = pytest.mark.browser

VIEWPORT: Any = {"width": 400, "height": 300}
SLICES, SIZE = 4, 16
STUDY, SERIES = "1.2.826.0.1.3680043.8.498.7", "1.2.826.0.1.3680043.8.498.7.1"

REPORTED = {
    "length": [[2, 3], [12, 9]],
    "polygon": [[4, 4], [12, 4], [12, 12], [5, 11]],
    "ellipse": [[3, 8], [13, 8], [8, 5], [8, 11]],
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Serve]:
    """A server with one small CT series."""
    if not (STATIC / "app" / "index.html").is_file() or not (STATIC / "ohif" / "index.html").is_file():
        pytest.skip("the web app is not built (./run build)")
    serve = Serve(tmp_path_factory.mktemp("browser") / "data", ANNOTOMY_HTTP_PROCESSES="1").start()
    try:
        _store(serve, ct_series(SLICES, study_instance_uid=STUDY, series_instance_uid=SERIES))
        yield serve
    finally:
        serve.stop()


@pytest.fixture
def page(server: Serve, browser: Browser) -> Generator[Page]:
    """Signed in, on the study list; a page error fails the test."""
    with signed_in(browser, server.address, viewport=VIEWPORT, locale="ko-KR") as opened:
        yield opened


def test_a_wrong_password_is_told_and_does_not_enter(server: Serve, browser: Browser) -> None:
    context = browser.new_context(viewport=VIEWPORT, locale="en-US", base_url=server.address)
    page = context.new_page()
    page.goto("/viewer/1.2.3")
    page.get_by_test_id("username").fill(ADMIN[0])
    page.get_by_test_id("password").fill("wrong")
    page.get_by_test_id("sign-in").click()
    expect(page.get_by_test_id("sign-in-error")).to_contain_text("not right", timeout=TIMEOUT_MS)
    context.close()


def test_the_study_list_speaks_both_languages_and_signs_out(page: Page) -> None:
    row = page.get_by_test_id("study-row").first
    expect(row).to_contain_text("Test Anna")
    expect(row.get_by_test_id("open-study")).to_have_text("열기")
    page.get_by_test_id("language").get_by_text("EN").click()
    expect(row.get_by_test_id("open-study")).to_have_text("Open")
    page.reload()
    expect(row.get_by_test_id("open-study")).to_have_text("Open")
    page.get_by_test_id("user-menu").click()
    page.get_by_test_id("sign-out").click()
    page.get_by_test_id("username").wait_for()


def test_a_study_opens_and_scrolls(page: Page) -> None:
    page.get_by_test_id("study-row").first.focus()
    page.keyboard.press("Enter")
    pixels = shown_pixels(page)
    assert pixels.max() > 100, "the image is black"
    assert saturation(pixels).max() < 10, "a CT without overlay has no colour"
    expect(page.get_by_test_id("slice")).to_have_text(f"3 / {SLICES}")
    page.keyboard.press("End")
    expect(page.get_by_test_id("slice")).to_have_text(f"{SLICES} / {SLICES}")


def test_the_overlay_is_drawn_in_the_colour_of_its_segment(page: Page) -> None:
    """The server's answers about segmentations are given here; pixels, geometry and painting are real."""
    _answer_segmentations(page)
    page.get_by_test_id("open-study").first.click()
    page.locator("[data-testid=segmentation][data-drawn=true]").wait_for()
    page.wait_for_function(
        "() => document.querySelectorAll('[data-testid=segment]').length === 1"  # the list stands
    )
    until_coloured(page, coloured=True)
    page.get_by_test_id("segment-visibility").click()
    until_coloured(page, coloured=False)


def test_ohif_opens_the_same_study(page: Page) -> None:
    with page.context.expect_page() as opening:
        page.get_by_test_id("open-ohif").first.click()
    ohif = opening.value
    ohif.locator(".cornerstone-canvas").first.wait_for()
    for _ in range(60):
        if pixels_of(ohif.locator(".cornerstone-canvas").first.screenshot())[..., :3].max() > 100:
            break
        ohif.wait_for_timeout(500)
    else:
        raise AssertionError("OHIF shows a black canvas")


def test_ohif_draws_our_report_on_the_images(server: Serve, page: Page) -> None:
    """Annotations become a DICOM SR in the archive, and OHIF finds it beside the images and draws what it holds."""
    with server.client() as client:
        project = client.get("/api/v1/projects").raise_for_status().json()["items"][0]["id"]
        instances = client.get(f"/dicom-web/studies/{STUDY}/series/{SERIES}/instances").raise_for_status().json()
        for kind, points in REPORTED.items():
            annotation = {
                "project_id": project,
                "study_instance_uid": STUDY,
                "sop_instance_uid": instances[1]["00080018"]["Value"][0],
                "kind": "measurement",
                "geometry": {"type": kind, "space": "pixel", "points": points},
            }
            client.post("/api/v1/annotations", json=annotation).raise_for_status()
        asked = {"project_id": project, "study_instance_uid": STUDY}
        client.post("/api/v1/annotations/export/sr", params=asked).raise_for_status()
    page.goto(f"/ohif/viewer?StudyInstanceUIDs={STUDY}")
    page.locator(".cornerstone-canvas").first.wait_for()
    page.locator("[data-cy=study-browser-thumbnail-no-image]", has_text="Annotations").dblclick()
    drawn = page.locator("svg.svg-layer")
    for shape in ("ellipse", "polyline", "line"):
        expect(drawn.locator(shape).first).to_be_attached(timeout=TIMEOUT_MS)
    expect(drawn.get_by_text("Area: 26.51 mm2")).to_be_attached()


def _store(serve: Serve, files: list[bytes]) -> None:
    parts = b"".join(b"--part\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in files)
    with serve.client() as client:
        client.post(
            "/dicom-web/studies",
            content=parts + b"--part--\r\n",
            headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=part'},
        ).raise_for_status()


def _answer_segmentations(page: Page) -> None:
    mask = np.zeros((SLICES, SIZE, SIZE), dtype=bool)
    mask[:, 4:12, 4:12] = True
    bits = np.packbits(mask.reshape(-1), bitorder="little").tobytes()
    header = json.dumps(
        {
            "shape_kji": mask.shape,
            "affine_lps": [0.75, 0, 0, -10, 0, 0.75, 0, -20, 0, 0, 2.5, 2.5, 0, 0, 0, 1],
            "segments": [{"segment_number": 1, "offset": 0, "length": len(bits)}],
        }
    ).encode()
    segment = {
        "segment_number": 1,
        "label": "Square",
        "code": {"value": "1", "scheme": "99TEST", "meaning": "Square"},
        "color": "#ff2020",
        "statistics": {"voxels": int(mask.sum()), "volume_mm3": 360.0, "centroid_lps_mm": None},
    }
    segmentation = {
        "id": "0198d5c0-0000-7000-8000-000000000001",
        "project_id": "0198d5c0-0000-7000-8000-000000000002",
        "study_instance_uid": STUDY,
        "series_instance_uid": SERIES,
        "version": 1,
        "state": "draft",
        "segments": [segment],
    }

    def answer(route: Route) -> None:
        if route.request.url.endswith("/masks"):
            body = struct.pack("<I", len(header)) + header + bits
            route.fulfill(body=body, content_type="application/octet-stream")
        else:
            route.fulfill(json={"items": [segmentation], "next": None, "total": 1})

    page.route("**/api/v1/segmentations**", answer)
    page.route("**/api/v1/segmentations/**", answer)
