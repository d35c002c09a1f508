"""kill -9 of the editor, the server or PostgreSQL while an annotation is edited: no accepted edit is lost, none is made twice.

A point is an edit, and a moment after it was sent; the seed is in the test's name, so that a failure can be run again.
"""

import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid

from tests.crash.annotation_editor import read_journal
from tests.crash.test_kill import kill_and_restart
from tests.db.private_data import data_folder
from tests.support.serve import Serve, wait_until

LATEST_POINT_S = 0.03
"""After an edit was sent: before it arrives, while it is written, after it was answered."""
DONE_S = 3000


@dataclass(frozen=True)
class Kill:
    target: str
    at: int
    """The edit that is under way."""
    point_s: float


@pytest.fixture(scope="module")
def serve() -> Iterator[Serve]:
    with socket.socket() as probe:  # the editor finds the server again where it was
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with data_folder() as data:
        started = Serve(data, ANNOTOMY_HTTP_PORT=str(port)).start()
        yield started
        started.stop()


@pytest.mark.parametrize("seed", [1])
def test_a_kill_while_an_annotation_is_edited(serve: Serve, tmp_path: Path, seed: int) -> None:
    chosen = random.Random(seed)  # noqa: S311
    kills = [Kill("editor", 3, moment(chosen)), Kill("postmaster", 7, moment(chosen))]
    edit_under_kills(serve, tmp_path / "journal", edits=10, kills=kills)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("seed", [2])
def test_many_kills_while_an_annotation_is_edited(serve: Serve, tmp_path: Path, seed: int) -> None:
    chosen = random.Random(seed)  # noqa: S311
    targets = ["editor", "server", "postmaster"] * 8
    chosen.shuffle(targets)
    at = sorted(chosen.sample(range(1, 500), len(targets)))
    kills = [Kill(target, number, moment(chosen)) for target, number in zip(targets, at, strict=True)]
    edit_under_kills(serve, tmp_path / "journal", edits=500, kills=kills)


def moment(chosen: random.Random) -> float:
    return chosen.uniform(0, LATEST_POINT_S)


def edit_under_kills(serve: Serve, journal: Path, *, edits: int, kills: list[Kill]) -> None:
    annotation_id = create(serve)
    editor = begin(serve, annotation_id, journal, edits)
    try:
        for kill in kills:
            wait_until(lambda at=kill.at: sent(journal) >= at, f"edit {kill.at} is sent", DONE_S)
            time.sleep(kill.point_s)
            if kill.target == "editor":
                editor.send_signal(signal.SIGKILL)
                editor.wait()
                editor = begin(serve, annotation_id, journal, edits)
            else:
                kill_and_restart(serve, kill.target)
        assert editor.wait(DONE_S) == 0
    finally:
        editor.kill()
        editor.wait()
    check_history(serve, annotation_id, journal, edits)


def create(serve: Serve) -> str:
    with serve.client() as client:
        project = client.post("/api/v1/projects", json={"name": f"crash {generate_uid()}"}).raise_for_status().json()
        body = {
            "project_id": project["id"],
            "study_instance_uid": str(generate_uid()),
            "kind": "label",
            "description": "edit 0",
        }
        return str(client.post("/api/v1/annotations", json=body).raise_for_status().json()["id"])


def begin(serve: Serve, annotation_id: str, journal: Path, edits: int) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "tests.crash.annotation_editor", serve.address, annotation_id, str(journal)]
    return subprocess.Popen([*command, str(edits)])


def sent(journal: Path) -> int:
    return max((number for _, number, _ in read_journal(journal)), default=0)


def check_history(serve: Serve, annotation_id: str, journal: Path, edits: int) -> None:
    """Every accepted edit is the version that it was told, with its content; none came twice, and no number is missing."""
    accepted = {number: version for what, number, version in read_journal(journal) if what == "accepted"}
    assert sorted(accepted) == list(range(1, edits + 1))
    with serve.client() as client:
        path = f"/api/v1/annotations/{annotation_id}"
        entries: list[dict[str, Any]] = client.get(f"{path}/versions").raise_for_status().json()["items"][::-1]
        assert [entry["version"] for entry in entries] == list(range(1, edits + 2))
        assert [entry["why"] for entry in entries] == ["", *(f"edit {number}" for number in range(1, edits + 1))]
        assert accepted == {number: number + 1 for number in range(1, edits + 1)}
        for number in {1, edits // 2, edits}:
            kept = client.get(f"{path}/versions/{accepted[number]}").raise_for_status().json()
            assert kept["content"]["description"] == f"edit {number}"
        standing = client.get(path).raise_for_status().json()
        assert (standing["version"], standing["description"]) == (edits + 1, f"edit {edits}")
