"""`annotomy doctor` tells what is there, what is not, and no secret."""

import socket
from pathlib import Path

import pytest

from annotomy.ops import doctor
from annotomy.ops.doctor import Finding, effective_settings, examine
from annotomy.settings import Settings


async def findings(**environ: str) -> dict[str, Finding]:
    return {finding.part: finding async for finding in examine(Settings.from_environment(environ))}


async def test_a_working_installation_has_no_failure(database_url: str, tmp_path: Path) -> None:
    found = await findings(
        ANNOTOMY_DATA=str(tmp_path), ANNOTOMY_DATABASE_URL=database_url, ANNOTOMY_HTTP_PORT="0", ANNOTOMY_DIMSE_PORT="0"
    )
    # The tests' own server runs with fsync off, which doctor must notice.
    assert {part for part, finding in found.items() if finding.state == "fail"} == {"durability"}
    assert found["schema"].state == "ok"
    assert found["blob store"].state == "ok"
    assert list((tmp_path / "blobs").rglob("*.part")) == []


async def test_a_schema_that_is_behind_fails_with_the_remedy(empty_database_url: str, tmp_path: Path) -> None:
    found = await findings(ANNOTOMY_DATA=str(tmp_path), ANNOTOMY_DATABASE_URL=empty_database_url)
    assert found["schema"].state == "fail"
    assert "annotomy migrate" in found["schema"].remedy


async def test_what_cannot_be_reached_or_written_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("no folder")
    monkeypatch.setattr(doctor, "FREE_FAIL_BYTES", 1 << 62)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
        found = await findings(
            ANNOTOMY_DATA=str(tmp_path),
            ANNOTOMY_BLOBS_URL=f"file://{in_the_way}/blobs",
            ANNOTOMY_HTTP_PORT=port,
            ANNOTOMY_DIMSE_PORT="0",
        )
        unreachable = await findings(
            ANNOTOMY_DATA=str(tmp_path), ANNOTOMY_DATABASE_URL=f"postgresql://a:b@127.0.0.1:{port}/c"
        )
    for part in ("blob store", "disk", "http port"):
        assert (part, found[part].state) == (part, "fail")
        assert found[part].remedy
    assert found["database"].state == "warn", "a private server that does not run is no failure"
    assert unreachable["database"].state == "fail"


def test_the_settings_are_told_without_secrets() -> None:
    settings = Settings.from_environment(
        {
            "ANNOTOMY_DATABASE_URL": "postgresql://annotomy:hunter2@db.example.org/annotomy?sslmode=require",
            "ANNOTOMY_BLOBS_URL": "s3://bucket?region=eu&secret_access_key=hunter3",
            "ANNOTOMY_ADMIN_PASSWORD": "hunter4 hunter4",
        }
    )
    told = dict(effective_settings(settings))
    assert told["database.url"] == "postgresql://annotomy:***@db.example.org/annotomy?sslmode=require"
    assert told["blobs_url"] == "s3://bucket?region=eu&secret_access_key=***"
    assert told["admin.password"] == "***"
    assert told["http.host"] == "127.0.0.1"
    assert "hunter" not in str(told)
