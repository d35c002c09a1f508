"""Edits: only what changed is stored, nothing that was saved is ever lost, a lost race is told, rights are kept."""

import json
import struct
from typing import Any
from uuid import uuid4

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from annotomy.archive.retrieve import locate, read_instance
from annotomy.segmentations.bricks import BRICK_SLICES
from tests.segmentations.placed_series import Placed, Project, add_member, some_masks
from tests.segmentations.test_create import masks_by_highdicom
from tests.segmentations.test_interchange import Client, created, decoded, started
from tests.support.application import Application
from tests.support.jobs import run_queued_jobs

TALL = Placed(shape_kji=(40, 7, 9))


def whole(masks: dict[int, NDArray[np.bool_]], **header: Any) -> bytes:
    """Whole masks, as GET masks answers them."""
    parts = [np.packbits(mask, bitorder="little").tobytes() for mask in masks.values()]
    ranges = [
        {"segment_number": n, "offset": index * len(parts[0]), "length": len(parts[0])} for index, n in enumerate(masks)
    ]
    shape = next(iter(masks.values())).shape if masks else TALL.shape_kji
    return framed({"shape_kji": list(shape), "segments": ranges, **header}, b"".join(parts))


def bricks(mask: NDArray[np.bool_], number: int, *indices: int) -> bytes:
    """Only these bricks of one segment."""
    parts = [np.packbits(mask[n * BRICK_SLICES : (n + 1) * BRICK_SLICES], bitorder="little").tobytes() for n in indices]
    ranges: list[dict[str, int]] = []
    offset = 0
    for index, part in zip(indices, parts, strict=True):
        ranges.append({"segment_number": number, "brick_index": index, "offset": offset, "length": len(part)})
        offset += len(part)
    return framed({"shape_kji": list(mask.shape), "bricks": ranges}, b"".join(parts))


def framed(header: dict[str, Any], payload: bytes) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<I", len(text)) + text + payload


class Editor(Client):
    async def save(self, segmentation_id: str, data: bytes, version: int) -> Any:
        return await self.application.client.post(
            f"/api/v1/segmentations/{segmentation_id}/versions",
            content=data,
            headers={**self.headers, "If-Match": f'"{version}"', "Content-Type": "application/octet-stream"},
        )

    async def change(self, segmentation_id: str, version: int, **changes: Any) -> Any:
        return await self.application.client.patch(
            f"/api/v1/segmentations/{segmentation_id}",
            json=changes,
            headers={**self.headers, "If-Match": f'"{version}"'},
        )

    async def delete(self, segmentation_id: str, version: int, **body: Any) -> Any:
        return await self.application.client.request(
            "DELETE",
            f"/api/v1/segmentations/{segmentation_id}",
            content=json.dumps(body) if body else b"",
            headers={**self.headers, "If-Match": f'"{version}"'},
        )

    async def restore(self, segmentation_id: str, base: int, version: int) -> Any:
        return await self.application.client.post(
            f"/api/v1/segmentations/{segmentation_id}/restore",
            json={"version": version},
            headers={**self.headers, "If-Match": f'"{base}"'},
        )


async def begun(application: Application) -> tuple[Project, Editor, str, dict[int, NDArray[np.bool_]]]:
    project, client = await started(application, TALL)
    masks = some_masks(TALL.shape_kji)
    segmentation_id = await created(application, project, TALL, masks)
    return project, Editor(application, client.headers), segmentation_id, masks


async def _stored_bricks(application: Application, project: Project) -> tuple[int, int]:
    async with application.services.db.read(project.admin) as tx:
        return (
            await tx.fetchval("select count(*) from bricks"),
            await tx.fetchval("select count(*) from segment_bricks"),
        )


async def test_saving_one_slice_stores_one_brick(application: Application) -> None:
    project, editor, segmentation_id, masks = await begun(application)
    before = await _stored_bricks(application, project)
    masks[1][20, 3, 4] ^= True
    answer = await editor.save(segmentation_id, whole(masks), 1)
    assert answer.status_code == 201, answer.text
    assert answer.headers["etag"] == '"2"' and answer.json()["version"] == 2
    assert await _stored_bricks(application, project) == (before[0] + 1, before[1] + 1)
    found = await editor.masks(segmentation_id)
    assert all(np.array_equal(found[number], masks[number]) for number in masks)
    told = {s["segment_number"]: s["statistics"]["voxels"] for s in answer.json()["segments"]}
    assert told == {number: int(mask.sum()) for number, mask in masks.items()}


async def test_bricks_alone_are_saved_and_the_old_version_stays(application: Application) -> None:
    _, editor, segmentation_id, masks = await begun(application)
    original = {number: mask.copy() for number, mask in masks.items()}
    masks[3][35:39, 2:4, 2:4] = True  # the last brick is a short one
    masks[2][:BRICK_SLICES] = False
    assert (await editor.save(segmentation_id, bricks(masks[3], 3, 2), 1)).status_code == 201
    assert (await editor.save(segmentation_id, bricks(masks[2], 2, 0), 2)).status_code == 201
    now, first = await editor.masks(segmentation_id), await editor.masks(segmentation_id, 1)
    for number in masks:
        assert np.array_equal(now[number], masks[number]) and np.array_equal(first[number], original[number])
    versions = (await editor.get(f"/{segmentation_id}/versions")).json()["items"]
    assert [v["version"] for v in versions] == [3, 2, 1]
    assert [v["segments"][1]["statistics"]["voxels"] for v in versions] == [0, original[2].sum(), original[2].sum()]


async def test_a_restored_version_is_a_new_one_and_everything_between_stays(application: Application) -> None:
    _, editor, segmentation_id, masks = await begun(application)
    edited = {**masks, 1: ~masks[1]}
    describe = [{"segment_number": 1, "label": "All else"}, {"segment_number": 4, "label": "New"}]
    answer = await editor.save(segmentation_id, whole({1: edited[1]}, describe=describe), 1)
    assert [s["segment_number"] for s in answer.json()["segments"]] == [1, 4], answer.text
    restored = await editor.restore(segmentation_id, 2, 1)
    assert restored.status_code == 201 and restored.json()["version"] == 3
    assert [s["label"] for s in restored.json()["segments"]] == ["Liver", "해마", "Nothing found"]
    for version, expected in ((1, masks), (2, {1: edited[1]}), (3, masks)):
        found = await editor.masks(segmentation_id, version)
        for number, mask in expected.items():
            assert np.array_equal(found[number], mask), (version, number)
    first = (await editor.get(f"/{segmentation_id}/statistics", version=1)).json()["segments"]
    third = (await editor.get(f"/{segmentation_id}/statistics", version=3)).json()["segments"]
    assert first == third


async def test_a_deleted_segmentation_is_gone_from_every_list_and_any_version_brings_it_back(
    application: Application,
) -> None:
    _, editor, segmentation_id, masks = await begun(application)
    gone = await editor.delete(segmentation_id, 1, why="wrong series")
    assert (gone.status_code, gone.headers["etag"]) == (204, '"2"')
    for path in ("", "/segments", "/masks", "/statistics", "/export"):
        answer = await application.client.get(f"/api/v1/segmentations/{segmentation_id}{path}", headers=editor.headers)
        assert answer.status_code == 404, path
        assert answer.json()["type"].endswith(":segmentation-deleted"), answer.text
    assert (await editor.get("")).json()["total"] == 0
    assert [one["id"] for one in (await editor.get("", deleted=True)).json()["items"]] == [segmentation_id]
    assert (await editor.save(segmentation_id, whole({1: ~masks[1]}), 2)).status_code == 404
    assert (await editor.delete(segmentation_id, 2)).status_code == 404
    versions = (await editor.get(f"/{segmentation_id}/versions")).json()["items"]
    assert [(v["version"], v["deleted"], v["why"]) for v in versions] == [(2, True, "wrong series"), (1, False, "")]
    assert np.array_equal((await editor.masks(segmentation_id, 1))[1], masks[1])
    restored = await editor.restore(segmentation_id, 2, 1)
    assert (restored.status_code, restored.json()["version"]) == (201, 3), restored.text
    assert (await editor.get("")).json()["total"] == 1
    found = await editor.masks(segmentation_id, 3)
    assert all(np.array_equal(found[number], mask) for number, mask in masks.items() if mask.any())


async def test_who_deletes_a_segmentation_is_a_matter_of_role_and_state(application: Application) -> None:
    project, editor, segmentation_id, _ = await begun(application)
    await add_member(application, project, "annotator", "annotator")
    await application.add_user("stranger")
    annotator = Editor(application, await application.headers("annotator"))
    stranger = Editor(application, await application.headers("stranger"))
    assert (await annotator.delete(segmentation_id, 1)).status_code == 403, "somebody else's"
    assert (await stranger.delete(segmentation_id, 1)).status_code == 404
    assert (await editor.delete(segmentation_id, 5)).status_code == 404, "no such version"
    assert (await editor.change(segmentation_id, 1, state="submitted")).status_code == 200
    assert (await editor.delete(segmentation_id, 1)).status_code == 412
    assert (await editor.delete(segmentation_id, 2)).status_code == 409
    assert (await editor.get(f"/{segmentation_id}")).json()["version"] == 2


async def test_a_lost_race_is_told_with_who_when_and_what_and_changes_nothing(application: Application) -> None:
    _, editor, segmentation_id, masks = await begun(application)
    other = {**masks, 2: ~masks[2]}
    assert (await editor.save(segmentation_id, whole(other, why="outline smoothed"), 1)).status_code == 201
    for lost in (
        await editor.save(segmentation_id, whole(masks), 1),
        await editor.restore(segmentation_id, 1, 1),
        await editor.change(segmentation_id, 1, state="submitted"),
    ):
        assert lost.status_code == 412
        told = lost.json()
        assert (told["current_version"], told["changed_by"], told["why"]) == (2, "owner", "outline smoothed")
        assert told["changed_at"]
    assert np.array_equal((await editor.masks(segmentation_id))[2], other[2])
    missing = await application.client.post(
        f"/api/v1/segmentations/{segmentation_id}/versions", content=whole(masks), headers=editor.headers
    )
    assert missing.status_code == 428


async def test_an_edit_that_changes_nothing_makes_no_version(application: Application) -> None:
    _, editor, segmentation_id, masks = await begun(application)
    assert (await editor.save(segmentation_id, whole(masks), 1)).json()["version"] == 1


async def test_an_edit_that_does_not_fit_is_refused(application: Application) -> None:
    _, editor, segmentation_id, masks = await begun(application)
    wrong_shape = {1: masks[1][:-1]}
    unknown = {9: masks[1]}
    for data, status in (
        (whole(wrong_shape), 422),
        (whole(unknown), 422),
        (whole({}, describe=[]), 422),
        (whole({}, describe=[{"segment_number": 1, "label": "a"}, {"segment_number": 1, "label": "b"}]), 422),
        (bricks(masks[1], 1, 0)[:-1], 400),
        (b"", 400),
    ):
        answer = await editor.save(segmentation_id, data, 1)
        assert answer.status_code == status, answer.text
    assert (await editor.get(f"/{segmentation_id}")).json()["version"] == 1


async def test_state_goes_its_way_by_who_may(application: Application) -> None:
    project, editor, segmentation_id, masks = await begun(application)
    await add_member(application, project, "annotator", "annotator")
    await add_member(application, project, "reviewer", "reviewer")
    annotator = Editor(application, await application.headers("annotator"))
    reviewer = Editor(application, await application.headers("reviewer"))
    assert (await annotator.change(segmentation_id, 1, state="approved")).status_code == 409
    assert (await annotator.change(segmentation_id, 1, state="submitted")).status_code == 403, "somebody else's"
    assert (await editor.change(segmentation_id, 1, state="submitted", why="ready")).json()["state"] == "submitted"
    assert (await editor.save(segmentation_id, whole({1: ~masks[1]}), 2)).status_code == 409
    assert (await annotator.change(segmentation_id, 2, state="approved")).status_code == 403
    approved = await reviewer.change(segmentation_id, 2, state="approved", why="good")
    assert (approved.json()["state"], approved.json()["version"]) == ("approved", 3)
    assert (await annotator.change(segmentation_id, 3, state="draft")).status_code == 403
    assert (await editor.change(segmentation_id, 3, label="Mine")).status_code == 409
    versions = (await editor.get(f"/{segmentation_id}/versions")).json()["items"]
    assert [(v["state"], v["why"], v["created_by_name"]) for v in versions] == [
        ("approved", "good", "reviewer"),
        ("submitted", "ready", "owner"),
        ("draft", "", "owner"),
    ]


async def test_an_approved_version_becomes_a_seg_of_the_archive_that_is_its_authors_work(
    application: Application,
) -> None:
    project, editor, segmentation_id, masks = await begun(application)
    await add_member(application, project, "reviewer", "reviewer")
    reviewer = Editor(application, await application.headers("reviewer"))
    edited = {**masks, 1: ~masks[1]}
    assert (await editor.save(segmentation_id, whole({1: edited[1]}), 1)).status_code == 201
    assert (await editor.change(segmentation_id, 2, state="submitted")).status_code == 200
    assert (await reviewer.change(segmentation_id, 3, state="approved")).status_code == 200
    await run_queued_jobs(application.services)
    found = (await editor.get(f"/{segmentation_id}")).json()
    exported = (await editor.get(f"/{segmentation_id}/export", version=4)).content
    async with application.services.db.read(project.admin) as tx:
        [at] = await locate(tx, sop_instance_uid=found["sop_instance_uid"])
        [first] = await locate(tx, sop_instance_uid=(await versions_of(editor, segmentation_id))[1]["sop_instance_uid"])
        owner = await tx.fetchval("select owner_id from series where series_instance_uid = $1", at.series_instance_uid)
    assert at.series_instance_uid == first.series_instance_uid
    assert owner == project.admin.user_id
    kept = await read_instance(application.services, at)
    assert kept == exported
    read = masks_by_highdicom(kept, TALL)
    assert all(np.array_equal(read[number], edited[number]) for number in (1, 2))
    await run_queued_jobs(application.services)
    assert (await editor.get(f"/{segmentation_id}")).json()["sop_instance_uid"] == found["sop_instance_uid"]


async def versions_of(editor: Editor, segmentation_id: str) -> dict[int, Any]:
    items = (await editor.get(f"/{segmentation_id}/versions")).json()["items"]
    return {item["version"]: item for item in items}


async def test_who_is_no_member_finds_nothing_and_a_viewer_writes_nothing(application: Application) -> None:
    project, editor, segmentation_id, masks = await begun(application)
    await add_member(application, project, "viewer", "viewer")
    await application.add_user("stranger")
    body = whole({1: ~masks[1]})
    match = {"If-Match": '"1"'}
    metadata = {
        "project_id": str(project.id),
        "study_instance_uid": TALL.study_instance_uid,
        "series_instance_uid": TALL.series_instance_uid,
    }
    at = f"/api/v1/segmentations/{segmentation_id}"
    form = {"data": {"metadata": json.dumps(metadata)}, "files": {"file": ("m", b"NRRD0005", "x/y")}}
    reads: list[tuple[str, str, dict[str, Any]]] = [
        ("GET", at + path, {}) for path in ("", "/segments", "/versions", "/statistics", "/masks", "/versions/1/masks")
    ] + [
        ("GET", f"{at}/export?format={form}", {})
        for form in ("seg", "labelmap-seg", "nifti", "nrrd", "rtstruct", "png")
    ]
    writes: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", f"{at}/versions", {"content": body}),
        ("POST", f"{at}/restore", {"json": {"version": 1}}),
        ("PATCH", at, {"json": {"state": "submitted"}}),
        ("PATCH", at, {"json": {"label": "Mine"}}),
        ("PATCH", at, {"json": {}}),
        ("POST", "/api/v1/segmentations", form),
    ]
    for username, read_status, write_status in (("stranger", 404, 404), ("viewer", 200, 403)):
        headers = await application.headers(username) | match
        for method, path, content in reads + writes:
            expected = read_status if method == "GET" else write_status
            if path.endswith("format=labelmap-seg") and expected == 200:
                expected = 422  # segments overlap
            answer = await application.client.request(method, path, headers=headers, **content)
            assert answer.status_code == expected, (username, method, path, answer.text)
        listed = await application.client.get("/api/v1/segmentations", headers=headers)
        assert listed.json()["total"] == (0 if username == "stranger" else 1)
    assert (await editor.get(f"/{segmentation_id}")).json()["version"] == 1
    anonymous = await application.client.get(at)
    assert anonymous.status_code == 401


async def test_a_project_that_lost_the_study_shows_no_mask_of_it(application: Application) -> None:
    project, editor, segmentation_id, _ = await begun(application)
    removed = await application.client.delete(
        f"/api/v1/projects/{project.id}/studies/{TALL.study_instance_uid}", headers=editor.headers
    )
    assert removed.status_code == 204
    answer = await application.client.get(f"/api/v1/segmentations/{segmentation_id}/masks", headers=editor.headers)
    assert answer.status_code == 404


async def test_lists_are_filtered_and_paged_the_newest_first(application: Application) -> None:
    project, editor, first, masks = await begun(application)
    others = [await created(application, project, TALL, masks) for _ in range(2)]
    await editor.change(first, 1, state="submitted")
    newest_first = [*reversed(others), first]
    page = (await editor.get("", limit=2, series_instance_uid=TALL.series_instance_uid)).json()
    rest = (await editor.get("", limit=2, cursor=page["next"])).json()
    assert [s["id"] for s in page["items"] + rest["items"]] == newest_first
    assert (page["total"], rest["next"]) == (3, None)
    for query, expected in (
        ({"state": "submitted"}, [first]),
        ({"study_instance_uid": TALL.study_instance_uid}, newest_first),
        ({"project_id": str(project.id)}, newest_first),
        ({"series_instance_uid": "1.2.3"}, []),
    ):
        assert [s["id"] for s in (await editor.get("", **query)).json()["items"]] == expected
    unknown = await application.client.get(f"/api/v1/segmentations?project_id={uuid4()}", headers=editor.headers)
    assert unknown.status_code == 404


edits = st.lists(
    st.tuples(st.sampled_from([1, 2, 3]), st.integers(0, 39), st.integers(0, 6), st.integers(0, 8), st.booleans()),
    min_size=1,
    max_size=6,
)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(edits, st.integers(1, 4)), min_size=1, max_size=5))
async def test_any_history_of_edits_and_restores_is_kept_version_by_version(
    application: Application, history: list[Any]
) -> None:
    from tests.segmentations.placed_series import file_bytes, project_with

    placed = Placed(shape_kji=TALL.shape_kji)
    name = f"owner-{uuid4().hex[:8]}"
    project = await project_with(application, file_bytes(placed.instances()), name)
    editor = Editor(application, await application.headers(name))
    now = some_masks(placed.shape_kji)
    segmentation_id = await created(application, project, placed, now)
    kept = [now]
    for step in history:
        if isinstance(step, int):
            wanted = min(step, len(kept))
            answer = await editor.restore(segmentation_id, len(kept), wanted)
            kept.append(kept[wanted - 1])
        else:
            now = {number: mask.copy() for number, mask in kept[-1].items()}
            for number, k, j, i, value in step:
                now[number][k, j, i] = value
            answer = await editor.save(segmentation_id, whole(now), len(kept))
            if any(np.any(now[number] != kept[-1][number]) for number in now):
                kept.append(now)
        assert answer.status_code == 201 and answer.json()["version"] == len(kept)
    for version, masks in enumerate(kept, start=1):
        found = await editor.masks(segmentation_id, version)
        assert all(np.array_equal(found[number], mask) for number, mask in masks.items())


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_masks_are_sent_compressed_to_who_takes_it(application: Application, encoding: str) -> None:
    _, editor, segmentation_id, masks = await begun(application)
    answer = await application.client.get(
        f"/api/v1/segmentations/{segmentation_id}/masks", headers={**editor.headers, "Accept-Encoding": encoding}
    )
    assert answer.headers.get("content-encoding") == ("gzip" if encoding == "gzip" else None)
    assert answer.headers["content-type"] == "application/octet-stream"
    assert np.array_equal(decoded(answer.content)[1], masks[1])
