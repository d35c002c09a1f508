"""Somebody without an account opens a share link in a real browser: the password, the viewer, and the one study alone."""

from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from playwright.sync_api import Browser, expect

from annotomy.http.static_files import STATIC
from tests.support.browser import TIMEOUT_MS
from tests.support.dicom_files import ct_series
from tests.support.serve import Serve

pytestmark = pytest.mark.browser

PASSWORD = "told by telephone"
SIZE: Any = {"width": 900, "height": 700}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Generator[Serve]:
    if not (STATIC / "app" / "index.html").is_file():
        pytest.skip("the web app is not built (./run build)")
    serve = Serve(tmp_path_factory.mktemp("share-page") / "data", ANNOTOMY_HTTP_PROCESSES="2").start()
    try:
        yield serve
    finally:
        serve.stop()


def test_a_share_link_opens_its_study_in_the_viewer(server: Serve, browser: Browser) -> None:
    shared, path = _share(server)
    context = browser.new_context(viewport=SIZE, locale="en-US", base_url=server.address)
    context.set_default_timeout(TIMEOUT_MS)
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path)
    page.get_by_test_id("share-password").fill("not this one")
    page.get_by_test_id("share-submit").click()
    expect(page.get_by_test_id("share-error")).to_contain_text("not right")
    page.get_by_test_id("share-password").fill(PASSWORD)
    page.get_by_test_id("share-submit").click()
    page.wait_for_url(f"**/ohif/viewer?StudyInstanceUIDs={shared}")
    rows = page.evaluate("() => fetch('/dicom-web/studies').then((answer) => answer.json())")
    assert [row["0020000D"]["Value"][0] for row in rows] == [shared]
    assert page.evaluate("() => fetch('/api/v1/users/me').then((answer) => answer.status)") == 401
    token = path.partition("#")[2]
    assert all(token not in url.partition("#")[0] for url in asked)
    context.close()


def _share(server: Serve) -> tuple[str, str]:
    """Two studies in a project; the link names one. Answers its UID and the link's path."""
    with server.client() as client:
        project = client.post("/api/v1/projects", json={"name": "shared"}).raise_for_status().json()["id"]
        for _ in range(2):
            parts = b"".join(
                b"--part\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in ct_series(1)
            )
            client.post(
                f"/dicom-web/studies?project_id={project}",
                content=parts + b"--part--\r\n",
                headers={"Content-Type": 'multipart/related; type="application/dicom"; boundary=part'},
            ).raise_for_status()
        studies = client.get("/dicom-web/studies").raise_for_status().json()
        assert len(studies) == 2
        study = studies[0]["0020000D"]["Value"][0]
        link = client.post(
            f"/api/v1/projects/{project}/share-links",
            json={
                "name": "Second opinion",
                "studies": [{"study_instance_uid": study}],
                "expires_at": (datetime.now(UTC) + timedelta(days=1)).isoformat(),
                "password": PASSWORD,
                "max_uses": 1,
            },
        ).raise_for_status()
        return study, link.json()["path"]
