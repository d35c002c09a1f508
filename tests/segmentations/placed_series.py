"""Series with any geometry, and a segmentation of one, for the tests of volumes and masks."""

import io
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from uuid import UUID

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

from annotomy.actor import Actor
from annotomy.archive.store import Incoming, store_instances
from annotomy.projects.members import set_member
from annotomy.projects.service import create_project
from annotomy.segmentations.segment import NewSegment
from annotomy.services import Services
from tests.support.application import Application
from tests.support.dicom_files import ct_instance

HIPPOCAMPUS = ("5366008", "SCT", "Hippocampus")
LIVER = ("10200004", "SCT", "Liver")
SEGMENTS = (
    NewSegment(1, "Liver", LIVER, "#ff8800", algorithm=("test model", "1")),
    NewSegment(2, "해마", HIPPOCAMPUS, "#0088ff"),
    NewSegment(3, "Nothing found", LIVER, "#00ff00"),
)


@dataclass(frozen=True)
class Placed:
    """Where a series lies; `affine_lps` is what a reader must find (slices ascending along the normal)."""

    shape_kji: tuple[int, int, int] = (5, 12, 10)
    spacing_kji_mm: tuple[float, float, float] = (2.5, 0.75, 0.5)
    origin_lps_mm: tuple[float, float, float] = (-10.0, -20.0, 30.0)
    row_direction: tuple[float, float, float] = (1.0, 0.0, 0.0)
    column_direction: tuple[float, float, float] = (0.0, 1.0, 0.0)
    thickness_mm: float | None = None
    study_instance_uid: str = field(default_factory=generate_uid)
    series_instance_uid: str = field(default_factory=generate_uid)

    @property
    def affine_lps(self) -> NDArray[np.float64]:
        row, column = np.array(self.row_direction), np.array(self.column_direction)
        k, j, i = self.spacing_kji_mm
        affine = np.eye(4)
        affine[:3, 0], affine[:3, 1], affine[:3, 2] = row * i, column * j, np.cross(row, column) * k
        affine[:3, 3] = self.origin_lps_mm
        return affine

    def values(self) -> NDArray[np.int16]:
        """Stored values; Hounsfield units are 1024 less."""
        return np.arange(np.prod(self.shape_kji), dtype=np.int16).reshape(self.shape_kji)

    def instances(self) -> list[FileDataset]:
        """In slice order, numbered against it: a reader that trusts InstanceNumber turns the volume over."""
        slices, rows, columns = self.shape_kji
        made: list[FileDataset] = []
        for k, pixels in enumerate(self.values()):
            data = ct_instance(
                study_instance_uid=self.study_instance_uid,
                series_instance_uid=self.series_instance_uid,
                number=slices - k,
            )
            dataset = dcmread(io.BytesIO(data))
            position = self.affine_lps @ np.array([0, 0, k, 1])
            dataset.ImagePositionPatient = [f"{v:.10g}" for v in position[:3]]
            dataset.ImageOrientationPatient = [f"{v:.10g}" for v in (*self.row_direction, *self.column_direction)]
            dataset.PixelSpacing = [self.spacing_kji_mm[1], self.spacing_kji_mm[2]]
            dataset.SliceThickness = self.thickness_mm or self.spacing_kji_mm[0]
            dataset.Rows, dataset.Columns = rows, columns
            dataset.PixelData = pixels.tobytes()
            made.append(dataset)
        return made


def oblique() -> Placed:
    """Turned about all axes, with three different spacings."""
    a, b = 0.4, -0.25
    row = (np.cos(a), np.sin(a), 0.0)
    column = (-np.sin(a) * np.cos(b), np.cos(a) * np.cos(b), np.sin(b))
    return Placed(
        shape_kji=(18, 11, 9),
        spacing_kji_mm=(3.0, 0.8, 1.1),
        row_direction=(float(row[0]), float(row[1]), 0.0),
        column_direction=(float(column[0]), float(column[1]), float(column[2])),
    )


def file_bytes(datasets: Iterable[FileDataset]) -> list[bytes]:
    files: list[bytes] = []
    for dataset in datasets:
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        files.append(buffer.getvalue())
    return files


async def store(services: Services, actor: Actor, project_id: UUID | None, files: Sequence[bytes]) -> None:
    async def stream() -> AsyncIterator[Incoming]:
        for number, data in enumerate(files):
            yield Incoming(str(number), data=data)

    outcomes = await store_instances(services, actor, project_id, stream())
    assert {outcome.state for outcome in outcomes} <= {"stored", "already"}, outcomes


@dataclass
class Project:
    id: UUID
    admin: Actor


async def project_with(application: Application, files: Sequence[bytes], username: str = "owner") -> Project:
    """A project of `username` that holds these files."""
    actor = await application.add_user(username)
    async with application.services.db.write(actor) as tx:
        project = await create_project(tx, name="masks", description="")
    await store(application.services, actor, project.id, files)
    return Project(project.id, actor)


async def add_member(application: Application, project: Project, username: str, role: str) -> Actor:
    actor = await application.add_user(username)
    async with application.services.db.write(project.admin) as tx:
        await set_member(tx, project.id, user_id=actor.user_id, role=role, expires_at=None)
    return actor


def some_masks(shape_kji: tuple[int, int, int]) -> dict[int, NDArray[np.bool_]]:
    """Two that overlap and one that is empty (SEGMENTS)."""
    random = np.random.default_rng(7)
    first = random.random(shape_kji) < 0.3
    second = np.zeros(shape_kji, np.bool_)
    second[1:3, 2:7, 1:6] = True
    return {1: first | second, 2: second, 3: np.zeros(shape_kji, np.bool_)}
