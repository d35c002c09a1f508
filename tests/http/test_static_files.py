"""The built pages as the browser gets them, and what is said when they are not built."""

import gzip
from pathlib import Path

import pytest

from annotomy.http import static_files
from annotomy.http.static_files import APP_POLICY, OHIF_POLICY, Site
from tests.support.application import Application

KEPT_BACK = "content of a file that no request may reach"


@pytest.fixture
def built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two small sites in place of the built ones."""
    for name in ("app", "ohif"):
        assets = tmp_path / name / "assets"
        assets.mkdir(parents=True)
        (tmp_path / name / "index.html").write_text(f"<title>{name}</title>")
        (assets / "index-AbCd1234.js").write_text("let one = 1;" * 20)
        (assets / "index-AbCd1234.js.gz").write_bytes(gzip.compress(b"let one = 1;" * 20))
        (assets / "decode-AbCd1234.wasm").write_bytes(b"\0asm")
    (tmp_path / "secret.txt").write_text(KEPT_BACK)
    (tmp_path / "app" / ".build-hash").write_text(KEPT_BACK)
    monkeypatch.setattr(static_files, "APP", Site(tmp_path / "app", APP_POLICY))
    monkeypatch.setattr(static_files, "OHIF", Site(tmp_path / "ohif", OHIF_POLICY))
    return tmp_path


async def test_a_page_of_the_app_answers_the_start_page_uncached(built: Path, application: Application) -> None:
    for path in ("/", "/sign-in", "/viewer/1.2.3"):
        answer = await application.client.get(path)
        assert (answer.status_code, answer.text) == (200, "<title>app</title>"), path
        assert answer.headers["cache-control"] == "no-cache"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cross-origin-embedder-policy"] == "require-corp"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_ohif_has_its_own_start_page(built: Path, application: Application) -> None:
    for path in ("/ohif", "/ohif/", "/ohif/viewer?StudyInstanceUIDs=1.2.3"):
        answer = await application.client.get(path)
        assert (answer.status_code, answer.text) == (200, "<title>ohif</title>"), path


async def test_hashed_assets_are_immutable_typed_and_compressed(built: Path, application: Application) -> None:
    script = await application.client.get("/assets/index-AbCd1234.js")
    assert script.headers["content-type"].startswith("text/javascript")
    assert "immutable" in script.headers["cache-control"]
    assert script.headers["content-encoding"] == "gzip"
    assert script.text == "let one = 1;" * 20
    plain = await application.client.get("/assets/index-AbCd1234.js", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    again = await application.client.get("/assets/index-AbCd1234.js", headers={"If-None-Match": script.headers["etag"]})
    assert again.status_code == 304
    wasm = await application.client.get("/assets/decode-AbCd1234.wasm")
    assert wasm.headers["content-type"] == "application/wasm"


@pytest.mark.parametrize(
    "path",
    [
        "/assets/missing.js",
        "/dicom-web/nothing",
        "/api",
    ],
)
async def test_what_is_no_page_is_not_found(built: Path, application: Application, path: str) -> None:
    answer = await application.client.get(path)
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("application/problem+json")


@pytest.mark.parametrize(
    "path", ["/%2e%2e/secret.txt", "/..%2fsecret.txt", "/.build-hash", "/assets/%2e%2e/%2e%2e/secret.txt"]
)
async def test_no_file_outside_the_built_ones_is_served(built: Path, application: Application, path: str) -> None:
    answer = await application.client.get(path)
    assert KEPT_BACK not in answer.text


async def test_without_a_built_app_the_page_says_how_to_build_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, application: Application
) -> None:
    monkeypatch.setattr(static_files, "APP", Site(tmp_path / "absent", APP_POLICY))
    answer = await application.client.get("/")
    assert answer.status_code == 503
    assert "./run serve" in answer.text
