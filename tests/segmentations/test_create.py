"""Creating a segmentation: bricks, statistics and a standard DICOM SEG, all at once or not at all."""

import asyncio
import io
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import highdicom as hd
import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import dcmread

from annotomy.archive.retrieve import locate, read_instance
from annotomy.archive.volume import load_source
from annotomy.db.engine import WriteTx
from annotomy.segmentations.errors import MaskMismatch, SegmentsInvalid
from annotomy.segmentations.service import NewSegmentation, create_segmentation
from tests.archive.test_volume import enhanced
from tests.segmentations.placed_series import (
    SEGMENTS,
    Placed,
    Project,
    add_member,
    file_bytes,
    oblique,
    project_with,
    some_masks,
)  # fmt: skip
from tests.support.application import Application


async def _seg_of(application: Application, project: Project, segmentation_id: UUID) -> bytes:
    """As DICOMweb retrieves it."""
    headers = await application.headers(project.admin.name)
    listed = (await application.client.get(f"/api/v1/segmentations/{segmentation_id}", headers=headers)).json()
    async with application.services.db.read(project.admin) as tx:
        [at] = await locate(tx, sop_instance_uid=listed["sop_instance_uid"])
    return await read_instance(application.services, at)


async def _new(application: Application, project: Project, placed: Placed, **changes: Any) -> NewSegmentation:
    source = await load_source(application.services, project.admin, placed.series_instance_uid)
    new = NewSegmentation(
        project_id=project.id, source=source, segments=SEGMENTS, masks=some_masks(placed.shape_kji), label="Test"
    )
    return replace(new, **changes)


def masks_by_highdicom(data: bytes, placed: Placed) -> dict[int, NDArray[np.bool_]]:
    """Read on the geometry that highdicom finds, then put in our slice order by position."""
    seg = hd.seg.segread(io.BytesIO(data))
    volume = seg.get_volume(combine_segments=False, rescale_fractional=False)
    affine_of_kji = placed.affine_lps[:, [2, 1, 0, 3]]
    target = hd.VolumeGeometry(affine_of_kji, placed.shape_kji, coordinate_system="PATIENT")
    matched = volume.match_geometry(target).array
    return {n: matched[..., n - 1].astype(bool) for n in seg.segment_numbers}


@pytest.mark.parametrize("placed", [Placed(), oblique(), Placed(thickness_mm=5.0)], ids=["axial", "oblique", "trap"])
async def test_the_seg_is_read_back_voxel_equal_overlaps_and_empty_segments_kept(
    application: Application, placed: Placed
) -> None:
    project = await project_with(application, file_bytes(placed.instances()))
    new = await _new(application, project, placed)
    segmentation_id = await create_segmentation(application.services, project.admin, new)
    data = await _seg_of(application, project, segmentation_id)
    dataset = dcmread(io.BytesIO(data))
    assert [(s.SegmentNumber, s.SegmentLabel, s.SegmentAlgorithmType) for s in dataset.SegmentSequence] == [
        (1, "Liver", "AUTOMATIC"), (2, "해마", "MANUAL"), (3, "Nothing found", "MANUAL"),
    ]  # fmt: skip
    assert new.masks is not None
    found = masks_by_highdicom(data, placed)
    for number, mask in new.masks.items():
        assert np.array_equal(found[number], mask), number
    referenced = {i.ReferencedSOPInstanceUID for i in dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence}
    assert referenced == {plane.sop_instance_uid for plane in new.source.planes}


async def test_a_seg_of_an_enhanced_series_references_the_right_frames(application: Application) -> None:
    placed = replace(Placed(), shape_kji=(4, 6, 5))
    project = await project_with(application, file_bytes([enhanced(placed, order=[2, 0, 3, 1])]))
    labels = np.zeros(placed.shape_kji, np.uint8)
    labels[3, 1:4, 2] = 1  # slice 3 is frame 3
    new = await _new(application, project, placed, masks=None, labels=labels, segments=SEGMENTS[:1])
    segmentation_id = await create_segmentation(application.services, project.admin, new)
    data = await _seg_of(application, project, segmentation_id)
    dataset = dcmread(io.BytesIO(data))
    assert np.array_equal(masks_by_highdicom(data, placed)[1], labels == 1) or dataset.NumberOfFrames == 1
    [frame] = dataset.PerFrameFunctionalGroupsSequence
    source = frame.DerivationImageSequence[0].SourceImageSequence[0]
    assert source.ReferencedFrameNumber == 3
    assert np.allclose(
        frame.PlanePositionSequence[0].ImagePositionPatient, (placed.affine_lps @ [0, 0, 3, 1])[:3], atol=1e-4
    )
    assert np.array_equal(dataset.pixel_array.reshape(labels[3].shape), labels[3])


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dciodvfy (Debian package dicom3tools) is not installed")
@pytest.mark.parametrize("kind", ["overlapping", "label map", "all empty", "enhanced"])
async def test_dciodvfy_finds_no_error_in_the_seg(application: Application, tmp_path: Path, kind: str) -> None:
    placed = replace(Placed(), shape_kji=(4, 6, 5))
    datasets = [enhanced(placed, order=[2, 0, 3, 1])] if kind == "enhanced" else placed.instances()
    project = await project_with(application, file_bytes(datasets))
    labels = np.zeros(placed.shape_kji, np.uint8)
    if kind != "all empty":
        labels[1:3, 2:5, 1:4] = 2
    changes: dict[str, Any] = {} if kind == "overlapping" else {"masks": None, "labels": labels}
    new = await _new(application, project, placed, **changes)
    segmentation_id = await create_segmentation(application.services, project.admin, new)
    file = tmp_path / "seg.dcm"
    file.write_bytes(await _seg_of(application, project, segmentation_id))
    told = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, text=True, check=False)
    errors = [line for line in (told.stdout + told.stderr).splitlines() if line.startswith("Error")]
    assert not errors, "\n".join(errors)
    assert "Segmentation" in told.stdout + told.stderr


@pytest.mark.parametrize("placed", [Placed(), oblique()], ids=["axial", "oblique"])
async def test_statistics_equal_an_independent_computation(application: Application, placed: Placed) -> None:
    project = await project_with(application, file_bytes(placed.instances()))
    new = await _new(application, project, placed)
    segmentation_id = await create_segmentation(application.services, project.admin, new)
    headers = await application.headers(project.admin.name)
    answer = (
        await application.client.get(f"/api/v1/segmentations/{segmentation_id}/statistics", headers=headers)
    ).json()
    voxel = float(np.prod(placed.spacing_kji_mm))
    assert answer["voxel_volume_mm3"] == pytest.approx(voxel, rel=1e-6)
    assert new.masks is not None
    for number, mask in new.masks.items():
        told = answer["segments"][str(number)]
        places = np.argwhere(mask)[:, ::-1]
        assert told["voxels"] == len(places)
        assert told["volume_mm3"] == pytest.approx(len(places) * voxel, rel=1e-6)
        if not len(places):
            assert told["centroid_lps_mm"] is None and told["bounding_box"] is None
            continue
        points = places @ placed.affine_lps[:3, :3].T + placed.affine_lps[:3, 3]
        assert np.allclose(told["centroid_lps_mm"], points.mean(axis=0), atol=1e-5)
        assert told["bounding_box"]["first_kji"] == places.min(axis=0)[::-1].tolist()
        assert told["bounding_box"]["last_kji"] == places.max(axis=0)[::-1].tolist()
        assert np.all(np.array(told["bounding_box"]["low_lps_mm"]) <= points.min(axis=0) + 1e-5)
        assert np.all(np.array(told["bounding_box"]["high_lps_mm"]) >= points.max(axis=0) - 1e-5)


async def test_what_the_caller_writes_commits_with_it_or_undoes_it(application: Application) -> None:
    placed = Placed()
    project = await project_with(application, file_bytes(placed.instances()))
    new = await _new(application, project, placed)

    async def fence(tx: WriteTx, segmentation_id: UUID) -> None:
        assert await tx.fetchval("select 1 from segmentations where id = $1", segmentation_id) == 1
        raise RuntimeError("another attempt took over")

    with pytest.raises(RuntimeError):
        await create_segmentation(application.services, project.admin, new, within=fence)
    headers = await application.headers(project.admin.name)
    assert (await application.client.get("/api/v1/segmentations", headers=headers)).json()["total"] == 0
    async with application.services.db.read(project.admin) as tx:
        assert await tx.fetchval("select count(*) from series") == 1, "no SEG is left in the archive"
        assert await tx.fetchval("select count(*) from bricks") == 0


async def test_a_second_call_of_the_same_id_changes_nothing(application: Application) -> None:
    placed = Placed()
    project = await project_with(application, file_bytes(placed.instances()))
    new = await _new(application, project, placed, id=uuid4())
    calls = [create_segmentation(application.services, project.admin, new) for _ in range(2)]
    assert await asyncio.gather(*calls) == [new.id, new.id]
    assert await create_segmentation(application.services, project.admin, new) == new.id
    async with application.services.db.read(project.admin) as tx:
        assert await tx.fetchval("select count(*) from segmentations") == 1
        assert await tx.fetchval("select count(*) from instances") == placed.shape_kji[0] + 1


async def test_masks_that_do_not_fit_and_segments_that_are_none_are_refused(application: Application) -> None:
    placed = Placed()
    project = await project_with(application, file_bytes(placed.instances()))
    for changes, problem in [
        ({"masks": None, "labels": np.zeros((4, 12, 10), np.uint8)}, MaskMismatch),
        ({"segments": SEGMENTS[:2]}, SegmentsInvalid),
        ({"segments": (*SEGMENTS, SEGMENTS[0])}, SegmentsInvalid),
        ({"segments": (*SEGMENTS[:2], replace(SEGMENTS[2], color="green"))}, SegmentsInvalid),
        ({"segments": (*SEGMENTS[:2], replace(SEGMENTS[2], code=("", "SCT", "Liver")))}, SegmentsInvalid),
    ]:
        with pytest.raises(problem):
            await create_segmentation(
                application.services, project.admin, await _new(application, project, placed, **changes)
            )


async def test_an_annotator_may_create_though_not_store_and_a_viewer_may_not(application: Application) -> None:
    from annotomy.errors import Forbidden, NotFound

    placed = Placed()
    project = await project_with(application, file_bytes(placed.instances()))
    new = await _new(application, project, placed)
    annotator = await add_member(application, project, "annotator", "annotator")
    viewer = await add_member(application, project, "viewer", "viewer")
    stranger = await application.add_user("stranger")
    await create_segmentation(application.services, annotator, new)
    with pytest.raises(Forbidden):
        await create_segmentation(application.services, viewer, new)
    with pytest.raises(NotFound):
        await create_segmentation(application.services, stranger, new)
