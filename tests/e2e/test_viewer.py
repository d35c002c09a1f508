"""Somebody measures and segments in the viewer: what is drawn is found again after a reload, after the network was away,
after the tab was closed, and when somebody else was faster. One server and one sign-in for all of it.
"""

import json
import struct
from collections.abc import Generator
from typing import Any

import httpx
import numpy as np
import pytest
from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from annotomy.http.static_files import STATIC
from tests.support.browser import TIMEOUT_MS, until_coloured
from tests.support.dicom_files import ct_series
from tests.support.serve import ADMIN, Serve

pytestmark = pytest.mark.browser

VIEWPORT: Any = {"width": 1000, "height": 560}
SLICES, SIZE, SPACING_MM = 4, 16, 0.75
VIEWER_LIMIT_BYTES = 1_400_000
"""Compressed."""
STUDY, SERIES = "1.2.826.0.1.3680043.8.498.8", "1.2.826.0.1.3680043.8.498.8.1"
OTHER = ("park", "only for tests 2!")


class World:
    """A server with one small CT, a signed-in browser, and another editor who works over the API."""

    def __init__(self, serve: Serve, context: BrowserContext, project: str) -> None:
        self.serve, self.context, self.project = serve, context, project
        self.errors: list[str] = []
        body = {"username": OTHER[0], "password": OTHER[1]}
        token = httpx.post(f"{serve.address}/api/v1/auth/token", json=body).raise_for_status().json()["access_token"]
        self.other = httpx.Client(base_url=serve.address, headers={"authorization": f"Bearer {token}"}, timeout=30)

    def open(self) -> Page:
        """The study in a new tab, once its image is shown and the outbox has nothing left to send."""
        page = self.context.new_page()
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(f"/viewer/{STUDY}")
        page.locator("[data-testid=viewport][data-shown=true]").wait_for()
        saved(page)
        return page

    def offline(self, page: Page) -> None:
        """Once all images are fetched ahead, so that there is something to draw on."""
        page.wait_for_load_state("networkidle")
        self.context.set_offline(True)

    def annotations(self) -> list[dict[str, Any]]:
        params = {"study_instance_uid": STUDY}
        return self.other.get("/api/v1/annotations", params=params).raise_for_status().json()["items"]

    def segmentations(self) -> list[dict[str, Any]]:
        params = {"series_instance_uid": SERIES}
        return self.other.get("/api/v1/segmentations", params=params).raise_for_status().json()["items"]

    def save_slice(self, segmentation: dict[str, Any], slice_index: int) -> None:
        """The other editor marks the left upper corner of a slice."""
        mask = np.zeros((SIZE, SIZE), np.bool_)
        mask[:3, :3] = True
        bits = np.packbits(mask, bitorder="little").tobytes()
        piece = {"segment_number": 1, "slice_index": slice_index, "offset": 0, "length": len(bits)}
        header = json.dumps({"shape_kji": [SLICES, SIZE, SIZE], "slices": [piece]}).encode()
        self.other.post(
            f"/api/v1/segmentations/{segmentation['id']}/versions",
            content=struct.pack("<I", len(header)) + header + bits,
            headers={"If-Match": f'"{segmentation["version"]}"', "Content-Type": "application/octet-stream"},
        ).raise_for_status()

    def mask(self, segmentation_id: str) -> np.ndarray[Any, np.dtype[np.bool_]]:
        data = self.other.get(f"/api/v1/segmentations/{segmentation_id}/masks").raise_for_status().content
        (length,) = struct.unpack_from("<I", data)
        bits = np.frombuffer(data[4 + length :], np.uint8)
        return np.unpackbits(bits, count=SLICES * SIZE * SIZE, bitorder="little").reshape(SLICES, SIZE, SIZE) > 0


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Generator[World]:
    if not (STATIC / "app" / "index.html").is_file():
        pytest.skip("the web app is not built (./run build)")
    serve = Serve(tmp_path_factory.mktemp("viewer") / "data", ANNOTOMY_HTTP_PROCESSES="1").start()
    try:
        project = _prepare(serve)
        context = browser.new_context(viewport=VIEWPORT, locale="en-US", base_url=serve.address)
        context.set_default_timeout(TIMEOUT_MS)
        page = context.new_page()
        page.goto("/")
        page.get_by_test_id("username").fill(ADMIN[0])
        page.get_by_test_id("password").fill(ADMIN[1])
        page.get_by_test_id("sign-in").click()
        page.get_by_test_id("study-row").first.wait_for()
        page.close()
        made = World(serve, context, project)
        yield made
        context.close()
        assert made.errors == []
    finally:
        serve.stop()


def test_a_length_is_drawn_measured_and_there_after_a_reload(world: World) -> None:
    page = world.open()
    page.keyboard.press("l")
    drag(page, (4, 8), (12, 8))
    saved(page)
    [stored] = world.annotations()
    [length] = [one["value"] for one in stored["measurements"] if one["name"] == "length"]
    assert length == pytest.approx(8 * SPACING_MM, abs=0.15)
    assert stored["mapped_geometry"]["space"] == "lps_mm", "it has its place in the patient"

    page.reload()
    page.locator("[data-testid=viewport][data-shown=true]").wait_for()
    page.keyboard.press("Home")
    page.get_by_test_id("tab-annotations").click()
    row = page.get_by_test_id("annotation")
    expect(row.get_by_test_id("measured")).to_have_text(f"{length:.2f} mm".replace(".00", ""))
    expect(page.get_by_test_id("shape")).to_have_count(0)
    row.get_by_role("button").first.click()  # goes to its slice
    expect(page.get_by_test_id("slice")).to_have_text(f"3 / {SLICES}")
    expect(page.get_by_test_id("shape")).to_have_count(1)

    page.get_by_test_id("delete-annotation").click()
    expect(page.get_by_test_id("annotation")).to_have_count(0)
    saved(page)
    assert world.annotations() == []
    page.get_by_test_id("undo").click()
    saved(page)
    assert [one["id"] for one in world.annotations()] == [stored["id"]], "the same one is back"
    page.close()


def test_strokes_become_versions_and_are_there_after_a_reload(world: World) -> None:
    page = world.open()
    page.get_by_test_id("new-segmentation").click()
    expect(page.get_by_test_id("tool-brush")).to_have_attribute("aria-pressed", "true")
    drag(page, (5, 6), (11, 6))
    until_coloured(page, coloured=True)
    drag(page, (5, 9), (11, 9))
    saved(page)
    [made] = world.segmentations()
    mask = world.mask(made["id"])
    assert mask[2, 5:10, 6:10].all(), "what the brush went over is marked"
    assert not mask[[0, 1, 3]].any(), "and only on this slice"

    page.keyboard.press("x")
    drag(page, (8, 7), (8, 7))
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Shift+z")
    saved(page)
    erased = world.mask(made["id"])
    assert not erased[2, 7, 8]
    assert erased.sum() < mask.sum()

    page.reload()
    page.locator("[data-testid=segmentation][data-drawn=true]").wait_for()
    until_coloured(page, coloured=True)
    page.get_by_test_id("open-history").click()
    rows = page.get_by_test_id("version")
    rows.nth(rows.count() - int(made["version"])).get_by_test_id("restore-version").click()
    expect(page.get_by_test_id("versions")).to_have_count(0)
    assert np.array_equal(world.mask(made["id"]), mask), "an earlier version is one click away"
    page.close()


def test_what_is_drawn_offline_and_left_behind_by_a_closed_tab_is_sent_on_return(world: World) -> None:
    page = world.open()
    page.locator("[data-testid=segmentation][data-drawn=true]").wait_for()
    [before] = world.segmentations()
    world.offline(page)
    page.keyboard.press("Home")
    page.get_by_test_id("segment").click()
    page.keyboard.press("d")
    drag(page, (8, 3), (8, 12))
    page.keyboard.press("o")
    drag(page, (3, 3), (3, 3))
    expect(page.get_by_test_id("save-state")).to_have_attribute("data-state", "offline")
    expect(page.get_by_test_id("save-state")).to_contain_text("2 changes")
    page.close()
    world.context.set_offline(False)
    assert world.segmentations() == [before], "nothing has left the browser"

    page = world.open()  # returns when the outbox is empty
    [after] = world.segmentations()
    assert after["version"] == before["version"] + 1
    assert world.mask(after["id"])[0, 4:12, 8].all()
    assert sorted(one["geometry"]["type"] for one in world.annotations()) == ["length", "probe"]
    page.close()


def test_a_lost_race_shows_both_masks_and_saves_them_slice_by_slice(world: World) -> None:
    page = world.open()
    page.locator("[data-testid=segmentation][data-drawn=true]").wait_for()
    [before] = world.segmentations()
    world.offline(page)  # both draw at once: ours is kept until theirs is stored
    page.get_by_test_id("segment").click()
    page.keyboard.press("d")
    page.keyboard.press("End")
    drag(page, (8, 12), (12, 12))
    page.keyboard.press("Home")
    drag(page, (12, 12), (13, 13))
    world.save_slice(before, 0)
    world.context.set_offline(False)
    page.get_by_test_id("open-conflict").click()
    dialog = page.get_by_test_id("conflict")
    expect(dialog).to_contain_text(OTHER[0])
    expect(dialog.locator("[data-both=true]")).to_contain_text("slice 1")
    expect(dialog.locator("[data-both=false]")).to_contain_text(f"slice {SLICES}")
    dialog.locator("[data-both=true]").get_by_text("Theirs").click()
    dialog.get_by_test_id("merge").click()
    saved(page)
    mask = world.mask(before["id"])
    assert mask[0, :3, :3].all() and not mask[0, 12:, 12:].any(), "theirs, as chosen"
    assert mask[3, 12, 8:12].all(), "mine, which nobody else touched"
    page.close()


def test_a_lost_race_on_an_annotation_is_decided_by_the_person(world: World) -> None:
    page = world.open()
    page.get_by_test_id("tab-annotations").click()
    row = page.get_by_test_id("annotation").filter(has_text="Length")
    row.get_by_role("button").first.click()
    [stored] = [one for one in world.annotations() if one["geometry"]["type"] == "length"]
    patch = {"description": "theirs"}
    headers = {"If-Match": f'"{stored["version"]}"'}
    world.other.patch(f"/api/v1/annotations/{stored['id']}", json=patch, headers=headers).raise_for_status()
    text = row.get_by_test_id("annotation-text")
    text.fill("mine")
    text.press("Enter")
    page.get_by_test_id("open-conflict").click()
    expect(page.get_by_test_id("conflict")).to_contain_text("theirs")
    expect(page.get_by_test_id("conflict")).to_contain_text("mine")
    page.get_by_test_id("keep-mine").click()
    saved(page)
    versions = world.other.get(f"/api/v1/annotations/{stored['id']}/versions").json()["items"]
    assert len(versions) == stored["version"] + 2, "theirs stays in the history"
    [now] = [one for one in world.annotations() if one["id"] == stored["id"]]
    assert now["description"] == "mine"

    page.close()


def test_a_shape_is_placed_moved_and_taken_back_by_keys_alone(world: World) -> None:
    page = world.open()
    before = world.annotations()
    for key in ("?", "Escape", "c", "Enter", "Alt+ArrowRight", "Alt+ArrowRight", "Alt+ArrowDown"):
        page.keyboard.press(key)
        if key == "?":
            expect(page.get_by_test_id("help-dialog")).to_contain_text("Threshold brush")
        if key == "Escape":
            expect(page.get_by_test_id("help-dialog")).to_have_count(0)
    saved(page)
    [made] = [one for one in world.annotations() if one["geometry"]["type"] == "rectangle"]
    assert made["geometry"]["points"] == [[8.0, 7.0], [12.0, 11.0]], (
        "a quarter of the image wide, two right and one down"
    )
    assert {one["name"] for one in made["measurements"]} >= {"area", "mean"}
    for _ in range(4):
        page.keyboard.press("Control+z")
    saved(page)
    assert {one["id"] for one in world.annotations()} == {one["id"] for one in before}
    page.close()


def test_the_viewer_keeps_to_its_size() -> None:
    """What a reader waits for at the first opening. The budget leaves room for a volume viewport, not for a second engine."""
    if not (STATIC / "app" / "index.html").is_file():
        pytest.skip("the web app is not built (./run build)")
    [chunk] = (STATIC / "app" / "assets").glob("viewer-page-*.js.gz")
    assert chunk.stat().st_size <= VIEWER_LIMIT_BYTES


def drag(page: Page, start: tuple[float, float], end: tuple[float, float]) -> None:
    """From the centre of one pixel of the image to that of another."""
    place = _image_box(page.get_by_test_id("viewport"))
    (x0, y0), (x1, y1) = (
        (place["x"] + (column + 0.5) * place["px"], place["y"] + (row + 0.5) * place["px"])
        for column, row in (start, end)
    )
    page.mouse.move(x0, y0)
    page.mouse.down()
    page.mouse.move((x0 + x1) / 2, (y0 + y1) / 2)
    page.mouse.move(x1, y1)
    page.mouse.up()


def _image_box(viewport: Locator) -> dict[str, float]:
    """A square image fills the height of its viewport and stands in the middle."""
    box = viewport.bounding_box()
    assert box is not None
    side = min(box["width"], box["height"])
    return {
        "x": box["x"] + (box["width"] - side) / 2,
        "y": box["y"] + (box["height"] - side) / 2,
        "px": side / SIZE,
    }


def saved(page: Page) -> None:
    """Waits until the server has everything."""
    expect(page.get_by_test_id("save-state")).to_have_attribute("data-state", "saved", timeout=TIMEOUT_MS)


def _prepare(serve: Serve) -> str:
    parts = b"".join(
        b"--part\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n"
        for file in ct_series(SLICES, study_instance_uid=STUDY, series_instance_uid=SERIES)
    )
    with serve.client() as client:
        project = client.post("/api/v1/projects", json={"name": "drawn"}).raise_for_status().json()["id"]
        client.post(
            f"/dicom-web/studies?project_id={project}",
            content=parts + b"--part--\r\n",
            headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=part'},
        ).raise_for_status()
        other = {"username": OTHER[0], "password": OTHER[1], "email": "park@example.org", "display_name": "Park"}
        user = client.post("/api/v1/users", json=other).raise_for_status().json()
        body = {"user_id": user["id"], "role": "reviewer"}
        client.post(f"/api/v1/projects/{project}/members", json=body).raise_for_status()
    return project
