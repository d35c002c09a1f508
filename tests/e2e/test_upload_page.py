"""Folders are dropped into the upload page of a real browser, the tab is closed in the middle, and the rest follows later."""

import json
import re
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, expect

from annotomy.http.static_files import STATIC
from tests.support.browser import TIMEOUT_MS
from tests.support.dicom_files import ct_instance
from tests.support.line import Line
from tests.support.serve import ADMIN, Serve, wait_until

pytestmark = pytest.mark.browser

VIEWPORT: Any = {"width": 1100, "height": 800}
ROOT = "1.2.826.0.1.3680043.8.498.77"
AXE = Path(__file__).parents[2] / "web" / "node_modules" / "axe-core" / "axe.min.js"
DEAD_AFTER_BYTES = 5 << 20
"""In the middle of the second chunk: the page sends 4 MiB at first (web/src/features/upload/rate.ts)."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Serve]:
    if not (STATIC / "app" / "index.html").is_file():
        pytest.skip("the web app is not built (./run build)")
    serve = Serve(
        tmp_path_factory.mktemp("upload-page") / "data", ANNOTOMY_HTTP_PROCESSES="1", ANNOTOMY_WORKERS_INLINE="1"
    ).start()
    yield serve
    serve.stop()


@pytest.fixture(scope="module")
def line(server: Serve) -> Generator[Line]:
    """What the browser reaches the server by."""
    opened = Line(server.address)
    yield opened
    opened.close()


@pytest.fixture
def context(line: Line, browser: Browser) -> Generator[BrowserContext]:
    """One browser of somebody's, whose tabs share what it remembers; an error of any page in it fails the test."""
    opened = browser.new_context(viewport=VIEWPORT, locale="en-US", base_url=line.address)
    opened.set_default_timeout(TIMEOUT_MS)
    errors: list[str] = []
    opened.on("weberror", lambda error: errors.append(str(error.error)))
    opened.on("console", lambda line: errors.append(line.text) if "Content Security Policy" in line.text else None)
    yield opened
    opened.close()
    assert errors == []


def test_a_folder_goes_on_at_its_offset_after_the_tab_was_closed(
    server: Serve, line: Line, context: BrowserContext, tmp_path: Path
) -> None:
    folder = study_folder(tmp_path / "환자 김", {f"{ROOT}.1": 40, f"{ROOT}.2": 20}, size=224)
    (folder / "note.txt").write_text("not an image")
    page = upload_page(context)
    line.go_dead_after(DEAD_AFTER_BYTES)
    page.get_by_test_id("folder-field").set_input_files(folder)
    line.wait_until_dead(30)
    page.close()
    line.come_back()
    arrived = settled_offset(server)
    assert 0 < arrived < 6 << 20

    page = upload_page(context)
    sent: list[int] = []
    page.on("request", lambda request: sent.append(length_of(request)) if request.method == "PATCH" else None)
    page.get_by_test_id("resume").click()
    page.get_by_test_id("unfinished").get_by_test_id("folder-field").set_input_files(folder)
    expect(page.get_by_test_id("upload-title")).to_have_text("Finished", timeout=TIMEOUT_MS)
    expect(page.get_by_test_id("study-report")).to_contain_text("60 files stored · 1 left out")
    expect(page.get_by_test_id("reported-study")).to_have_count(2)
    page.get_by_test_id("filter-skipped").click()
    expect(page.get_by_test_id("file-row")).to_have_count(1)
    expect(page.get_by_test_id("file-row")).to_contain_text("Not a medical image or archive.")
    with server.client() as client:
        [upload] = client.get("/api/v1/uploads").raise_for_status().json()["items"]
        assert sum(sent) == upload["length"] - arrived, "what had arrived is not sent again"
        assert image_counts(client) == {f"{ROOT}.1": 40, f"{ROOT}.2": 20}
    assert kept_by(page) == [], "what resuming needed is gone with its end"


def test_what_is_here_already_is_told_and_not_sent_when_it_is_dropped(context: BrowserContext, tmp_path: Path) -> None:
    folder = study_folder(tmp_path / "again", {f"{ROOT}.3": 3})
    page = upload_page(context)
    assert serious_findings(page) == []
    for title in ("3 files stored", "3 were here already"):
        drop(page, folder)
        expect(page.get_by_test_id("study-report")).to_contain_text(title, timeout=TIMEOUT_MS)
        expect(page.get_by_test_id("reported-study")).to_have_count(1)
        assert serious_findings(page) == []
        page.get_by_test_id("upload-more").click()
    expect(page.get_by_test_id("upload-line").first).to_contain_text("Pack of 3 files")


def test_pictures_are_asked_for_their_geometry_and_what_is_no_image_is_refused_with_a_reason(
    server: Serve, context: BrowserContext, tmp_path: Path
) -> None:
    folder = tmp_path / "stack"
    folder.mkdir()
    for number in range(3):
        Image.fromarray(np.full((8, 8), 40 * number, dtype=np.uint8)).save(folder / f"slice{number}.png")
    page = upload_page(context)
    page.get_by_test_id("folder-field").set_input_files(folder)
    question = page.get_by_test_id("pictures-question")
    expect(question).to_contain_text("3 pictures", timeout=TIMEOUT_MS)
    question.get_by_test_id("geometry-send").click()
    expect(question).to_contain_text("A number is needed")
    assert serious_findings(page) == []
    for name in ("rowMm", "columnMm", "sliceMm"):
        question.get_by_test_id(f"geometry-{name}").fill("0,5")
    question.get_by_test_id("geometry-send").click()
    expect(page.get_by_test_id("study-report")).to_contain_text("3 files stored", timeout=TIMEOUT_MS)
    page.get_by_test_id("upload-more").click()

    text = tmp_path / "letter.txt"
    text.write_text("not an image")
    page.get_by_test_id("files-field").set_input_files(text)
    expect(page.get_by_test_id("upload-title")).to_contain_text("but for 1 file", timeout=TIMEOUT_MS)
    expect(page.get_by_test_id("file-row")).to_contain_text("Not a medical image or archive.")
    with server.client() as client:
        [series] = [
            one
            for study in client.get("/dicom-web/studies").json()
            for one in client.get(f"/dicom-web/studies/{value(study, '0020000D')}/series").json()
            if value(one, "00080060") == "OT"
        ]
        assert value(series, "00201209") == 3


@pytest.mark.long
def test_two_thousand_files_of_a_closed_tab_are_all_present(
    server: Serve, context: BrowserContext, tmp_path: Path
) -> None:
    studies = {f"{ROOT}.9.{number}": 200 for number in range(10)}
    folder = study_folder(tmp_path / "many", studies, size=64)
    page = upload_page(context)
    page.get_by_test_id("folder-field").set_input_files(folder)
    page.wait_for_function(
        "() => Number(document.querySelector('[data-testid=filter-stored]')?.textContent.replace(/\\D/g, '')) > 200"
    )
    done_before = page.get_by_test_id("upload-facts").inner_text()
    assert "2,000 of 2,000 files" not in done_before, "the tab is closed in the middle"
    page.close()

    page = upload_page(context)
    page.get_by_test_id("resume").click()
    page.get_by_test_id("unfinished").get_by_test_id("folder-field").set_input_files(folder)
    expect(page.get_by_test_id("upload-title")).to_have_text("Finished", timeout=5 * TIMEOUT_MS)
    expect(page.get_by_test_id("study-report")).to_contain_text("2,000 files stored")
    with server.client() as client:
        assert {uid: n for uid, n in image_counts(client).items() if uid in studies} == studies
        states: Counter[str] = Counter()
        for upload in client.get("/api/v1/uploads", params={"limit": 1000}).json()["items"]:
            for file in client.get(f"/api/v1/uploads/{upload['id']}").json()["files"]:
                if file["study_instance_uid"] in studies:
                    states[file["state"]] += 1
        assert states == {"stored": 2000}, "no file came twice"


def serious_findings(page: Page) -> list[str]:
    """What axe finds against WCAG 2.2 A and AA that keeps people out."""
    page.evaluate(AXE.read_text())
    tags = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
    found = page.evaluate("tags => axe.run(document, {runOnly: tags})", tags)
    return [
        f"{one['id']}: {node['html']}"
        for one in found["violations"]
        if one["impact"] in ("serious", "critical")
        for node in one["nodes"]
    ]


def study_folder(folder: Path, studies: dict[str, int], *, size: int = 16) -> Path:
    for study, slices in studies.items():
        (folder / study).mkdir(parents=True)
        for number in range(1, slices + 1):
            data = ct_instance(
                study_instance_uid=study,
                series_instance_uid=f"{study}.1",
                sop_instance_uid=f"{study}.1.{number}",
                number=number,
                size=size,
            )
            (folder / study / f"{number}.dcm").write_bytes(data)
    return folder


def upload_page(context: BrowserContext) -> Page:
    page = context.new_page()
    page.goto("/upload")
    page.get_by_test_id("username").or_(page.get_by_test_id("drop-zone")).first.wait_for()
    if page.get_by_test_id("username").count():
        page.get_by_test_id("username").fill(ADMIN[0])
        page.get_by_test_id("password").fill(ADMIN[1])
        page.get_by_test_id("sign-in").click()
    expect(page.get_by_test_id("choose-folder").first).to_be_enabled()
    return page


def drop(page: Page, folder: Path) -> None:
    """As the desktop does it: the browser gets a path, and its page an entry to walk."""
    box = page.get_by_test_id("drop-zone").bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    at = {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        session.send("Input.dispatchDragEvent", {"type": kind, **at, "data": data})


def settled_offset(server: Serve) -> int:
    """Of the one upload, once the server has noticed that its connection is broken."""
    found: list[int] = []

    def stands_still() -> bool:
        with server.client() as client:
            [upload] = client.get("/api/v1/uploads").raise_for_status().json()["items"]
            found.append(upload["offset"])
        return upload["offset"] % (4 << 20) != 0

    wait_until(stands_still, "part of the second chunk is booked")
    return found[-1]


def length_of(request: Any) -> int:
    return int(request.all_headers().get("content-length", 0))


def image_counts(client: httpx.Client) -> dict[str, int]:
    found = client.get("/dicom-web/studies", params={"includefield": "NumberOfStudyRelatedInstances", "limit": 100})
    return {value(study, "0020000D"): value(study, "00201208") for study in found.raise_for_status().json()}


def value(dataset: dict[str, Any], tag: str) -> Any:
    found = dataset[tag]["Value"][0]
    return int(found) if isinstance(found, str) and re.fullmatch(r"\d+", found) else found


def kept_by(page: Page) -> list[Any]:
    return json.loads(
        page.evaluate(
            """() => new Promise((resolve, reject) => {
              const opening = indexedDB.open('annotomy-uploads');
              opening.onerror = () => reject(opening.error);
              opening.onsuccess = () => {
                const asking = opening.result.transaction('drops').objectStore('drops').getAll();
                asking.onsuccess = () => resolve(JSON.stringify(asking.result));
              };
            })"""
        )
    )
