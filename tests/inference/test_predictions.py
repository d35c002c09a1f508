"""Predictions through the application: asked, run by the engine that workers use, refused, cancelled, never half done."""

import asyncio
import dataclasses
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from pgqueuer.db import AsyncpgDriver
from pgqueuer.queries import Queries

from annotomy.actor import SYSTEM
from annotomy.inference.runners.isolated import IsolatedRunner, ModelProcess
from annotomy.services import Services
from tests.inference.fake_models import FACTORY, FakeModel, fake_card
from tests.inference.support import Scene, make_scene, store_series
from tests.support.application import Application
from tests.support.dicom_files import ct_series
from tests.support.jobs import run_queued_jobs

GATE_MODEL = "waits for the gate"


@pytest.fixture
async def services(services: Services, tmp_path: Path) -> AsyncGenerator[Services]:
    process = ModelProcess(services.settings.models)
    runners: dict[str, Any] = {name: FakeModel(name) for name in ("bright", "refuses")}
    runners[GATE_MODEL] = FakeModel(GATE_MODEL, tmp_path / "gate")
    for name in ("crashes", "answers unknown labels", "isolated"):
        runners[name] = IsolatedRunner(process, fake_card(name), FACTORY)
    yield dataclasses.replace(services, runners={**services.runners, **runners})
    await asyncio.to_thread(process.close)


@pytest.fixture
async def scene(application: Application) -> Scene:
    return await make_scene(application)


async def half_done(scene: Scene) -> dict[str, int]:
    """What of a result is stored, counted where no access rule hides anything."""
    tables = ("segmentations", "segmentation_versions", "segments", "segment_bricks")
    counts = {table: (await scene.rows(f"select count(*) from {table}"))[0][0] for table in tables}
    counts["SEG instances"] = (
        await scene.rows("select count(*) from instances where sop_class_uid like '1.2.840.10008.5.1.4.1.1.66%'")
    )[0][0]
    return counts


NOTHING = {"segmentations": 0, "segmentation_versions": 0, "segments": 0, "segment_bricks": 0, "SEG instances": 0}


async def test_a_prediction_becomes_a_proposal(scene: Scene) -> None:
    answer = await scene.ask("bright")
    assert answer.status_code == 202
    asked = answer.json()
    assert answer.headers["location"] == f"/api/v1/predictions/{asked['id']}"
    assert (asked["state"], asked["proposal_id"], asked["problem"]) == ("queued", None, None)
    assert await half_done(scene) == NOTHING
    await run_queued_jobs(scene.application.services)
    ended = await scene.get(f"/predictions/{asked['id']}")
    assert ended["state"] == "succeeded"
    assert ended["progress"] == 1.0
    assert ended["proposal_id"] == ended["segmentation_id"] is not None
    assert ended["flags"] == ["made-for-tests"]
    assert ended["quality"]["low"] == -1023.0
    assert len(ended["input_digest"]) == 64
    assert (await scene.get(f"/jobs/{asked['job_id']}"))["state"] == "succeeded"
    segmentation = await scene.get(f"/segmentations/{ended['segmentation_id']}")
    assert segmentation["state"] == "proposal"
    assert [s["label"] for s in segmentation["segments"]] == ["Bright", "Brightest"]
    # 6 slices of a ramp of 256 values: one half is above the median, a tenth above the last tenth.
    voxels = [s["statistics"]["voxels"] for s in segmentation["segments"]]
    assert 600 <= voxels[0] <= 630
    assert 140 <= voxels[1] <= 160
    [event] = await scene.rows("select * from events where type = 'prediction.succeeded'")
    assert event["object_id"] == asked["id"]


async def test_equal_input_gives_equal_voxels(scene: Scene) -> None:
    first, second = await scene.ended("isolated"), await scene.ended("isolated")
    assert first["segmentation_id"] != second["segmentation_id"]
    assert first["input_digest"] == second["input_digest"]
    bricks = [
        await scene.rows(
            "select segment_number, brick_index, address from segment_bricks where segmentation_id = $1 order by 1, 2",
            UUID(one["segmentation_id"]),
        )
        for one in (first, second)
    ]
    assert bricks[0] == bricks[1] != []


async def test_a_refusal_is_an_answer_and_stores_nothing(scene: Scene) -> None:
    ended = await scene.ended("refuses")
    assert ended["state"] == "refused"
    assert ended["problem"]["type"] == "urn:annotomy:problem:model-refused"
    assert ended["problem"]["reason"] == "anatomy-not-recognised"
    assert ended["problem"]["detail"] == "It is not what the model was made for."
    assert (await scene.get(f"/jobs/{ended['job_id']}"))["state"] == "succeeded"
    assert await half_done(scene) == NOTHING


async def test_a_series_that_is_no_volume_is_refused_with_the_reason(application: Application) -> None:
    files = ct_series(7)
    scene = await make_scene(application, files[:2] + files[3:])
    ended = await scene.ended("bright")
    assert ended["state"] == "refused"
    assert ended["problem"]["type"] == "urn:annotomy:problem:missing-slices"


async def test_built_in_models_refuse_a_ct_with_their_own_slug(scene: Scene) -> None:
    ended = await scene.ended("hippocampus")
    assert ended["state"] == "refused"
    assert ended["problem"]["reason"] == "modality-not-supported"


@pytest.mark.parametrize(("model", "slug"), [("crashes", "model-crashed"), ("answers unknown labels", "model-failed")])
async def test_a_broken_model_fails_its_own_job_only(scene: Scene, model: str, slug: str) -> None:
    broken, other = await scene.asked(model), await scene.asked("isolated")
    await run_queued_jobs(scene.application.services)
    failed = await scene.get(f"/predictions/{broken['id']}")
    assert failed["state"] == "failed"
    assert failed["problem"]["type"] == f"urn:annotomy:problem:{slug}"
    assert (await scene.get(f"/jobs/{broken['job_id']}"))["state"] == "failed"
    assert (await scene.get(f"/predictions/{other['id']}"))["state"] == "succeeded"


# -- who may -----------------------------------------------------------------------------------------------------------


async def test_who_may_not_run_models_is_told_so_and_a_stranger_learns_nothing(scene: Scene) -> None:
    viewer, stranger = await scene.member("viewer", "viewer"), await scene.application.headers("stranger")
    assert (await scene.ask("bright", viewer)).status_code == 403
    assert (await scene.ask("bright", stranger)).status_code == 404
    assert (await scene.application.client.post("/api/v1/predictions", json={})).status_code == 401
    batch = {"model": "bright", "project_id": scene.project_id, "series_instance_uids": [scene.series_instance_uid]}
    for headers, status in ((viewer, 403), (stranger, 404)):
        answer = await scene.application.client.post("/api/v1/predictions/batch", headers=headers, json=batch)
        assert answer.status_code == status
    assert (await scene.rows("select count(*) from predictions"))[0][0] == 0
    assert (await scene.rows("select count(*) from jobs"))[0][0] == 0


async def test_members_see_predictions_and_strangers_do_not(scene: Scene) -> None:
    asked = await scene.asked("bright")
    viewer, stranger = await scene.member("viewer", "viewer"), await scene.application.headers("stranger")
    client = scene.application.client
    assert (await client.get(f"/api/v1/predictions/{asked['id']}", headers=viewer)).status_code == 200
    assert (await client.get(f"/api/v1/predictions/{asked['id']}", headers=stranger)).status_code == 404
    assert len((await scene.get("/predictions", viewer))["items"]) == 1
    assert (await scene.get("/predictions", stranger))["items"] == []
    cancel = f"/api/v1/predictions/{asked['id']}/cancel"
    assert (await client.post(cancel, headers=stranger)).status_code == 404
    assert (await client.post(cancel, headers=viewer)).status_code == 403
    assert (await client.post(cancel, headers=await scene.application.headers("owner"))).status_code == 200


async def test_a_series_of_another_project_is_not_there(scene: Scene) -> None:
    owner = await scene.application.headers("owner")
    other = (await scene.application.client.post("/api/v1/projects", headers=owner, json={"name": "Other"})).json()
    uid = await store_series(scene.application, owner, other["id"], ct_series(3))
    for asked_uid in (uid, "1.2.3"):
        answer = await scene.ask("bright", owner, series_instance_uid=asked_uid)
        assert answer.status_code == 404
        assert answer.json()["detail"] == "There is no such series in this project."


async def test_rights_lost_before_the_job_runs_stop_it(scene: Scene) -> None:
    asked = await scene.asked("bright")
    me = (await scene.get("/users/me"))["id"]
    await scene.set_role(me, "viewer")
    await run_queued_jobs(scene.application.services)
    ended = await scene.get(f"/predictions/{asked['id']}")
    assert ended["state"] == "failed"
    assert ended["problem"]["type"] == "urn:annotomy:problem:forbidden"
    assert await half_done(scene) == NOTHING


@pytest.mark.parametrize("fields", [{"model": "nothing"}, {"model": "bright", "version": "0.0.9"}])
async def test_an_unknown_model_is_told_with_what_there_is(scene: Scene, fields: dict[str, Any]) -> None:
    answer = await scene.ask(**fields)
    assert answer.status_code == 404
    assert answer.json()["type"] == "urn:annotomy:problem:unknown-model"
    assert "bright 1.0.0" in answer.json()["known_models"]


async def test_parameters_that_no_model_takes_are_refused(scene: Scene) -> None:
    assert (await scene.ask("bright", parameters={"threshold": 1})).status_code == 400
    assert (await scene.ask("bright", parameters={}, version="1.0.0")).status_code == 202


# -- once --------------------------------------------------------------------------------------------------------------


async def test_a_repeated_request_with_its_key_is_one_prediction(scene: Scene) -> None:
    headers = scene.headers | {"Idempotency-Key": "again"}
    first, second = await asyncio.gather(scene.ask("bright", headers), scene.ask("bright", headers))
    assert first.status_code == second.status_code == 202
    assert first.json()["id"] == second.json()["id"]
    assert first.headers["location"] == second.headers["location"]
    other = await scene.ask("refuses", headers)
    assert other.status_code == 422
    assert other.json()["type"] == "urn:annotomy:problem:idempotency-key-reused"
    assert (
        await scene.ask("bright", await scene.member("colleague", "annotator") | {"Idempotency-Key": "again"})
    ).json()["id"] != first.json()["id"]
    assert (await scene.rows("select count(*) from predictions"))[0][0] == 2


async def test_a_job_that_is_delivered_twice_has_one_result(scene: Scene) -> None:
    asked = await scene.asked("bright")
    async with scene.application.services.db.write(SYSTEM) as tx:
        bare: Any = tx.raw._con  # pyright: ignore[reportPrivateUsage]
        await Queries(AsyncpgDriver(bare)).enqueue("run-prediction", UUID(asked["job_id"]).bytes, 0)
    await run_queued_jobs(scene.application.services)
    assert (await half_done(scene))["segmentations"] == 1
    assert (await scene.get(f"/predictions/{asked['id']}"))["state"] == "succeeded"
    assert len(await scene.rows("select 1 from events where type = 'prediction.succeeded'")) == 1


async def test_an_attempt_that_was_taken_over_stores_nothing(scene: Scene, tmp_path: Path) -> None:
    asked = await scene.asked(GATE_MODEL)
    working = asyncio.create_task(run_queued_jobs(scene.application.services))
    await until_running(scene, asked)
    async with scene.application.services.db.write(SYSTEM) as tx:  # as another worker does when it begins the job
        await tx.execute("update jobs set attempt = attempt + 1 where id = $1", UUID(asked["job_id"]))
    (tmp_path / "gate").touch()
    await working
    assert await half_done(scene) == NOTHING
    assert (await scene.get(f"/predictions/{asked['id']}"))["state"] == "running"


async def until_running(scene: Scene, asked: Any) -> None:
    """Until the model itself runs, which its progress tells."""
    while (found := await scene.get(f"/predictions/{asked['id']}"))["progress"] < 0.4:
        assert found["state"] in ("queued", "running"), found
        await asyncio.sleep(0.01)


# -- cancel ------------------------------------------------------------------------------------------------------------


async def test_a_queued_prediction_that_is_cancelled_never_begins(scene: Scene) -> None:
    asked = await scene.asked("bright")
    client = scene.application.client
    cancelled = await client.post(f"/api/v1/predictions/{asked['id']}/cancel", headers=scene.headers)
    assert cancelled.status_code == 200
    assert cancelled.json()["state"] == "cancelled"
    await run_queued_jobs(scene.application.services)
    assert (await scene.get(f"/jobs/{asked['job_id']}"))["attempts"] == 0
    assert await half_done(scene) == NOTHING


async def test_a_running_prediction_that_is_cancelled_ends_without_a_result(scene: Scene) -> None:
    asked = await scene.asked(GATE_MODEL)
    working = asyncio.create_task(run_queued_jobs(scene.application.services))
    await until_running(scene, asked)
    await scene.application.client.post(f"/api/v1/predictions/{asked['id']}/cancel", headers=scene.headers)
    await working
    assert (await scene.get(f"/predictions/{asked['id']}"))["state"] == "cancelled"
    assert (await scene.get(f"/jobs/{asked['job_id']}"))["state"] == "cancelled"
    assert await half_done(scene) == NOTHING


async def test_a_prediction_that_has_ended_cannot_be_cancelled_any_more(scene: Scene) -> None:
    ended = await scene.ended("bright")
    answer = await scene.application.client.post(f"/api/v1/predictions/{ended['id']}/cancel", headers=scene.headers)
    assert answer.json()["state"] == "succeeded"


# -- many --------------------------------------------------------------------------------------------------------------


async def test_a_batch_is_one_prediction_for_each_series_that_is_there(scene: Scene) -> None:
    owner = await scene.application.headers("owner")
    second = await store_series(scene.application, owner, scene.project_id, ct_series(4))
    uids = [scene.series_instance_uid, "1.2.3", second, second]
    answer = await scene.application.client.post(
        "/api/v1/predictions/batch",
        headers=scene.headers,
        json={"model": "bright", "project_id": scene.project_id, "series_instance_uids": uids},
    )
    assert answer.status_code == 202
    items = answer.json()["items"]
    assert [item["series_instance_uid"] for item in items] == [scene.series_instance_uid, "1.2.3", second]
    assert items[1]["problem"]["type"] == "urn:annotomy:problem:not-found"
    assert items[1]["id"] is None
    await run_queued_jobs(scene.application.services)
    for item in (items[0], items[2]):
        assert item["state"] == "queued"
        assert (await scene.get(f"/predictions/{item['id']}"))["state"] == "succeeded"
    assert (await half_done(scene))["segmentations"] == 2


async def test_a_batch_over_the_limit_enqueues_nothing(scene: Scene) -> None:
    answer = await scene.application.client.post(
        "/api/v1/predictions/batch",
        headers=scene.headers,
        json={"model": "bright", "project_id": scene.project_id, "series_instance_uids": ["1.2"] * 501},
    )
    assert answer.status_code == 400
    assert (await scene.rows("select count(*) from jobs"))[0][0] == 0


async def test_predictions_are_paged_and_filtered(scene: Scene) -> None:
    ids = [(await scene.asked("bright"))["id"] for _ in range(3)]
    await scene.application.client.post(f"/api/v1/predictions/{ids[0]}/cancel", headers=scene.headers)
    found: list[str] = []
    cursor = ""
    while True:
        page = await scene.get(f"/predictions?limit=2{cursor}")
        found += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert found == ids[::-1]
    cancelled = await scene.get("/predictions?state=cancelled")
    assert [item["id"] for item in cancelled["items"]] == ids[:1]
    queued = await scene.get(f"/predictions?state=queued&series_instance_uid={scene.series_instance_uid}")
    assert len(queued["items"]) == 2
    assert (await scene.get(f"/predictions?project_id={uuid4()}"))["items"] == []


async def test_models_are_listed_with_their_cards(scene: Scene) -> None:
    page = await scene.get("/models")
    by_name = {model["name"]: model for model in page["items"]}
    hippocampus = by_name["hippocampus"]
    assert hippocampus["version"] == "1.0.0"
    assert hippocampus["modalities"] == ["MR"]
    assert hippocampus["licence"] == "CC-BY-SA-4.0"
    assert "adults" in hippocampus["description"]
    assert hippocampus["labels"][0]["code"]["scheme"] == "99ANNOTOMY"
    assert hippocampus["labels"][0]["color"] == "#e6550d"
    assert await scene.get("/models/hippocampus") == hippocampus
    assert (await scene.application.client.get("/api/v1/models/none", headers=scene.headers)).status_code == 404
    assert (await scene.application.client.get("/api/v1/models")).status_code == 401
