"""What a brush needs: a segmentation that begins empty, saves of single slices, and a save that is sent twice."""

from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from annotomy.segmentations.bricks import BRICK_SLICES
from tests.segmentations.placed_series import add_member
from tests.segmentations.test_interchange import started
from tests.segmentations.test_versions import TALL, Editor, begun, bricks, framed
from tests.support.application import Application


def slices(mask: NDArray[np.bool_], number: int, *indices: int, **header: Any) -> bytes:
    parts = [np.packbits(mask[k], bitorder="little").tobytes() for k in indices]
    ranges = [
        {"segment_number": number, "slice_index": k, "offset": n * len(parts[0]), "length": len(parts[0])}
        for n, k in enumerate(indices)
    ]
    return framed({"shape_kji": list(mask.shape), "slices": ranges, **header}, b"".join(parts))


async def test_a_segmentation_begins_empty_once_for_its_id_and_takes_strokes(application: Application) -> None:
    project, client = await started(application, TALL)
    editor = Editor(application, client.headers)
    segmentation_id = str(uuid4())
    body = {
        "id": segmentation_id,
        "project_id": str(project.id),
        "study_instance_uid": TALL.study_instance_uid,
        "series_instance_uid": TALL.series_instance_uid,
        "label": "By hand",
        "segments": [{"segment_number": 1, "label": "Tumour", "color": "#ff2020"}],
    }

    async def begin() -> Any:
        made = await application.client.post("/api/v1/segmentations/empty", json=body, headers=client.headers)
        assert made.status_code == 201, made.text
        return made.json()

    begun_as = await begin()
    assert await begin() == begun_as
    assert (begun_as["version"], begun_as["state"]) == (1, "draft")
    assert begun_as["sop_instance_uid"] is None, "a DICOM SEG without a voxel shows nothing"
    assert (await client.get("/")).json()["total"] == 1
    mask = np.zeros(TALL.shape_kji, np.bool_)
    mask[17, 2:4, 3:6] = True
    saved = await editor.save(segmentation_id, slices(mask, 1, 17), 1)
    assert saved.status_code == 201, saved.text
    assert np.array_equal((await editor.masks(segmentation_id))[1], mask)
    reader = await add_member(application, project, "reader", "viewer")
    headers = await application.headers(reader.name)
    refused = await application.client.post("/api/v1/segmentations/empty", json=body, headers=headers)
    assert refused.status_code == 403


async def test_saved_slices_leave_the_others_of_their_brick(application: Application) -> None:
    _, editor, segmentation_id, masks = await begun(application)
    painted = masks[2].copy()
    painted[15], painted[16], painted[39] = True, False, True
    answer = await editor.save(segmentation_id, slices(painted, 2, 15, 16, 39), 1)
    assert answer.status_code == 201, answer.text
    found = await editor.masks(segmentation_id)
    assert np.array_equal(found[2], painted)
    assert np.array_equal(found[1], masks[1])
    told = {s["segment_number"]: s["statistics"]["voxels"] for s in answer.json()["segments"]}
    assert told[2] == int(painted.sum())


async def test_slices_that_cannot_be_are_refused(application: Application) -> None:
    _, editor, segmentation_id, masks = await begun(application)
    shape = {"shape_kji": list(TALL.shape_kji)}
    size = (TALL.shape_kji[1] * TALL.shape_kji[2] + 7) // 8
    beyond = {"segment_number": 1, "slice_index": TALL.shape_kji[0], "offset": 0, "length": size}
    short = {"segment_number": 1, "slice_index": 0, "offset": 0, "length": size - 1}
    for wrong in (beyond, short):
        answer = await editor.save(segmentation_id, framed({**shape, "slices": [wrong]}, bytes(size)), 1)
        assert answer.status_code == 400, answer.text
    brick = bricks(masks[1], 1, 0)
    length = BRICK_SLICES * TALL.shape_kji[1] * TALL.shape_kji[2] // 8
    both = {
        **shape,
        "bricks": [{"segment_number": 1, "brick_index": 0, "offset": 0, "length": length}],
        "slices": [{"segment_number": 1, "slice_index": 3, "offset": 0, "length": size}],
    }
    answer = await editor.save(segmentation_id, framed(both, brick[-length:]), 1)
    assert answer.status_code == 400, "which of both would count?"


async def test_a_save_that_is_sent_again_makes_one_version(application: Application) -> None:
    _, editor, segmentation_id, masks = await begun(application)
    masks[1][4] = True
    data = slices(masks[1], 1, 4)
    headers = {
        **editor.headers,
        "If-Match": '"1"',
        "Content-Type": "application/octet-stream",
        "Idempotency-Key": "stroke-1",
    }
    url = f"/api/v1/segmentations/{segmentation_id}/versions"
    for _ in range(2):
        answer = await application.client.post(url, content=data, headers=headers)
        assert (answer.status_code, answer.json()["version"]) == (201, 2)
    other = await application.client.post(url, content=slices(masks[1], 1, 5), headers=headers)
    assert other.status_code == 422, "the key belongs to the first stroke"
    late = await application.client.post(url, content=data, headers={**headers, "Idempotency-Key": "stroke-2"})
    assert late.status_code == 412, "another save from version 1 lost the race"
