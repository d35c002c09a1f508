"""Interactive sessions through the API: hints in, mask out, taken as a version; one's own, and few at once."""

import json
import struct
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from annotomy.actor import SYSTEM, Actor
from annotomy.archive.volume import load_source
from annotomy.interactive import sessions
from annotomy.interactive.volumes import OpenVolumes
from annotomy.interactive.walker_process import WalkerProcess
from annotomy.segmentations.service import NewSegmentation, create_segmentation
from tests.inference.support import Headers, Scene, make_scene
from tests.interactive.phantom import FIRST, SECOND, SHAPE_KJI, ball, dice, files
from tests.segmentations.placed_series import SEGMENTS
from tests.segmentations.test_interchange import decoded
from tests.support.application import Application

AROUND = [[12, 20, 38], [12, 38, 20], [12, 4, 20], [12, 20, 4], [5, 20, 20], [19, 20, 20]]
ON_FIRST = {"kind": "point", "at_kji": [list(FIRST)]}
HINTS = [ON_FIRST, {"kind": "point", "at_kji": AROUND, "on_object": False}]
PATH = "/api/v1/interactive-sessions"


@pytest.fixture
async def scene(application: Application) -> Scene:
    return await make_scene(application, files())


async def _begin(scene: Scene, headers: Headers | None = None) -> Any:
    body = {"project_id": scene.project_id, "series_instance_uid": scene.series_instance_uid}
    answer = await scene.application.client.post(f"{PATH}/", headers=headers or scene.headers, json=body)
    assert answer.status_code == 201, answer.text
    return answer.json()


async def _point(scene: Scene, session: Any, hints: list[Any], headers: Headers | None = None) -> httpx.Response:
    path = f"{PATH}/{session['id']}/hints"
    return await scene.application.client.put(path, headers=headers or scene.headers, json={"hints": hints})


def _mask(answer: httpx.Response) -> NDArray[np.bool_]:
    assert answer.status_code == 200, answer.text
    (length,) = struct.unpack_from("<I", answer.content)
    header = json.loads(answer.content[4 : 4 + length])
    assert header["shape_kji"] == list(SHAPE_KJI)
    (a, b, c), (x, y, z) = header["region"]
    shape = (x - a, y - b, z - c)
    bits = np.frombuffer(answer.content[4 + length :], np.uint8)
    whole = np.zeros(SHAPE_KJI, np.bool_)
    whole[a:x, b:y, c:z] = np.unpackbits(bits, count=int(np.prod(shape)), bitorder="little").reshape(shape)
    assert int(whole.sum()) == header["voxels"]
    return whole


async def test_hints_become_a_mask_and_the_mask_a_version(scene: Scene) -> None:
    session = await _begin(scene)
    assert (session["state"], session["hints"]) == ("ready", [])
    found = _mask(await _point(scene, session, HINTS))
    assert dice(found, ball(FIRST)) > 0.9

    segmentation = await _segmentation(scene)
    client = scene.application.client
    taken = {"segmentation_id": segmentation, "segment_number": 1, "base_version": 1}
    answer = await client.post(f"{PATH}/{session['id']}/take", headers=scene.headers, json=taken)
    assert answer.json() == {"segmentation_id": segmentation, "version": 2}, answer.text
    voxels = await _voxels(scene, segmentation)
    assert voxels == found.sum()

    again = {"kind": "point", "at_kji": [list(SECOND)]}
    box = {"kind": "box", "at_kji": [[7, 31, 29], [17, 61, 59]]}
    second = _mask(await _point(scene, session, [again, box]))
    assert dice(second, ball(SECOND)) > 0.9
    answer = await client.post(f"{PATH}/{session['id']}/take", headers=scene.headers, json=taken | {"base_version": 2})
    assert answer.json()["version"] == 3
    assert await _voxels(scene, segmentation) == (found | second).sum()
    late = await client.post(f"{PATH}/{session['id']}/take", headers=scene.headers, json=taken | {"base_version": 2})
    assert late.status_code == 412, "a lost race overwrites nothing"
    removed = taken | {"base_version": 3, "how": "remove"}
    await client.post(f"{PATH}/{session['id']}/take", headers=scene.headers, json=removed)
    assert await _voxels(scene, segmentation) == (found & ~second).sum()


async def test_the_last_hint_is_undone_by_leaving_it_out(scene: Scene) -> None:
    session = await _begin(scene)
    before = _mask(await _point(scene, session, HINTS))
    stroke = {"kind": "stroke", "at_kji": [[12, 14, 14], [12, 14, 26]], "on_object": False}
    changed = _mask(await _point(scene, session, [*HINTS, stroke]))
    assert not changed[12, 14, 14:27].any()
    assert np.array_equal(_mask(await _point(scene, session, HINTS)), before)


async def test_hints_survive_and_give_the_same_mask_in_any_process(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await _begin(scene)
    before = _mask(await _point(scene, session, HINTS))
    # Another process of the server has no volume open, and its child died.
    volumes, walker = OpenVolumes(), WalkerProcess()
    monkeypatch.setattr(sessions, "_volumes", lambda: volumes)
    monkeypatch.setattr(sessions, "_walker", lambda: walker)
    again = await scene.application.client.get(f"{PATH}/{session['id']}/mask", headers=scene.headers)
    assert np.array_equal(_mask(again), before)
    [child] = [one for one in psutil.Process().children() if one.pid == walker.pid]
    child.kill()
    known = await scene.get(f"/interactive-sessions/{session['id']}")
    assert [hint["at_kji"] for hint in known["hints"]] == [hint["at_kji"] for hint in HINTS]
    again = await scene.application.client.get(f"{PATH}/{session['id']}/mask", headers=scene.headers)
    assert np.array_equal(_mask(again), before)


async def test_a_session_is_ones_own(scene: Scene) -> None:
    session = await _begin(scene)
    other = await scene.member("another", "annotator")
    client = scene.application.client
    for method, path in (("GET", ""), ("GET", "/mask"), ("DELETE", "")):
        answer = await client.request(method, f"{PATH}/{session['id']}{path}", headers=other)
        assert answer.status_code == 404
    assert (await _point(scene, session, HINTS, other)).status_code == 404
    assert (await client.get(f"{PATH}/", headers=other)).json()["items"] == []


async def test_who_sees_the_series_no_more_gets_no_mask_of_it(scene: Scene) -> None:
    session = await _begin(scene)
    assert (await _point(scene, session, HINTS)).status_code == 200
    owner = await scene.application.headers("owner")
    rule = {"effect": "DENY", "level": "STUDY", "attribute": "Modality", "operator": "EQ", "value": "CT"}
    rules = f"/api/v1/projects/{scene.project_id}/rules"
    made = await scene.application.client.post(rules, headers=owner, json=rule | {"level": "SERIES"})
    assert made.status_code == 201, made.text
    assert (await _point(scene, session, HINTS)).status_code == 404


async def test_places_are_few_and_who_came_first_has_one(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "PLACES", 1)
    first = await _begin(scene)
    other = await scene.member("another", "annotator")
    second = await _begin(scene, other)
    assert (second["state"], second["position"]) == ("waiting", 1)
    refused = await _point(scene, second, HINTS, other)
    assert (refused.status_code, refused.json()["position"]) == (503, 1)
    assert refused.headers["Retry-After"] == "5"
    ended = await scene.application.client.delete(f"{PATH}/{first['id']}", headers=scene.headers)
    assert ended.status_code == 204
    path = f"{PATH}/{second['id']}/mask"
    assert dice(_mask(await scene.application.client.get(path, headers=other)), ball(FIRST)) > 0.9


async def test_who_rested_too_long_stands_behind_the_others(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "PLACES", 1)
    first = await _begin(scene)
    async with scene.application.services.db.write(SYSTEM) as tx:
        await tx.execute("update interactive_sessions set used_at = now() - interval '11 minutes'")
    other = await scene.member("another", "annotator")
    second = await _begin(scene, other)
    assert (await _point(scene, second, HINTS, other)).status_code == 200
    assert (await _point(scene, first, HINTS)).status_code == 503


@pytest.mark.parametrize(
    "hints",
    [
        [],
        [{"kind": "point", "at_kji": AROUND, "on_object": False}],
        [{"kind": "point", "at_kji": [[900, 0, 0]]}],
        [ON_FIRST, {"kind": "box", "at_kji": [[0, 0, 0], [3, 3, 3]]}],
    ],
    ids=["none", "background alone", "outside of the volume", "outside of the box"],
)
async def test_without_a_hint_on_the_object_it_is_said_what_is_missing(scene: Scene, hints: list[Any]) -> None:
    session = await _begin(scene)
    answer = await _point(scene, session, hints)
    assert (answer.status_code, answer.json()["type"]) == (422, "urn:annotomy:problem:nothing-pointed-at")


async def _segmentation(scene: Scene) -> str:
    """Of the series, with one segment that holds nothing yet."""
    services = scene.application.services
    actor = Actor(UUID((await scene.get("/users/me"))["id"]), "annotator")
    source = await load_source(services, actor, scene.series_instance_uid)
    empty = {1: np.zeros(SHAPE_KJI, np.bool_)}
    new = NewSegmentation(
        project_id=UUID(scene.project_id), source=source, segments=[SEGMENTS[0]], masks=empty, label="Balls"
    )
    return str(await create_segmentation(services, actor, new))


async def _voxels(scene: Scene, segmentation: str) -> int:
    path = f"/api/v1/segmentations/{segmentation}/masks"
    answer = await scene.application.client.get(path, headers=scene.headers)
    assert answer.status_code == 200, answer.text
    return int(decoded(answer.content)[1].sum())
