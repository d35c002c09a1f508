"""Bringing studies in: whatever the remote does in the middle of it, nothing is lost, nothing false is kept, and the counts are true."""

from collections.abc import Awaitable
from typing import Any
from uuid import UUID

import pytest

from annotomy.actor import SYSTEM
from annotomy.archive.retrieve import locate, read_instance
from annotomy.errors import NotFound
from annotomy.jobs.handlers import JobContext
from annotomy.jobs.queue import MAX_ATTEMPTS
from tests.remotes.hospital import MANAGER, SERIES, STUDY, Hospital
from tests.support.dicom_files import ct_instance
from tests.support.jobs import run_attempt


async def ask(hospital: Hospital, **what: Any) -> dict[str, Any]:
    body = {"project_id": str(hospital.project_id), "study_instance_uid": STUDY} | what
    asked = await hospital.post(f"/remotes/{hospital.remote_id}/retrievals", body)
    assert asked.status_code == 202, asked.text
    assert asked.headers["location"].endswith(asked.json()["id"])
    return asked.json()


async def told_of(hospital: Hospital, asked: dict[str, Any]) -> dict[str, Any]:
    return (await hospital.get(f"/remotes/{hospital.remote_id}/retrievals/{asked['id']}")).json()


async def bring(hospital: Hospital, *, between: Awaitable[Any] | None = None, **what: Any) -> dict[str, Any]:
    """Asked, worked at until it ends, however often it has to begin anew; what the route says then."""
    return await worked_off(hospital, await ask(hospital, **what), between=between)


async def worked_off(
    hospital: Hospital, asked: dict[str, Any], *, between: Awaitable[Any] | None = None
) -> dict[str, Any]:
    """`between` happens before the second attempt."""
    for _ in range(MAX_ATTEMPTS):
        if not await run_attempt(hospital.services, UUID(asked["job_id"])):
            break
        if between is not None:
            await between
            between = None
    return await told_of(hospital, asked)


async def kept(hospital: Hospital, study: str = STUDY) -> dict[str, bytes]:
    manager = await hospital.actor(MANAGER)
    try:
        async with hospital.services.db.read(manager) as tx:
            found = await locate(tx, study_instance_uid=study)
    except NotFound:
        return {}
    return {at.sop_instance_uid: await read_instance(hospital.services, at) for at in found}


async def test_a_study_comes_in_bit_for_bit_and_the_project_sees_it(hospital: Hospital) -> None:
    told = await bring(hospital)
    assert (told["state"], told["expected"], told["present"], told["refused"]) == ("succeeded", 4, 4, {}), told
    assert await kept(hospital) == hospital.pacs.files
    studies = await hospital.get_as("owner", f"/projects/{hospital.project_id}/studies")
    assert [one["study_instance_uid"] for one in studies.json()["items"]] == [STUDY]
    [row] = (await hospital.query()).json()["items"]
    assert row["held"] is True
    log = (await hospital.get_as("owner", "/events/log", after=0, limit=500)).json()
    assert "remote.retrieved" in {one["type"] for one in log["items"]}


async def test_asked_again_it_fetches_nothing_and_later_only_what_is_missing(hospital: Hospital) -> None:
    await bring(hospital)
    hospital.pacs.requests.clear()
    await bring(hospital)
    assert not [path for _, path in hospital.pacs.requests if path.endswith(SERIES) or "/instances/" in path]
    fresh = ct_instance(study_instance_uid=STUDY, series_instance_uid=SERIES, number=5, sop_instance_uid="1.2.3.5")
    hospital.pacs.hold(fresh)
    hospital.pacs.requests.clear()
    told = await bring(hospital, series_instance_uid=SERIES)
    assert (told["state"], told["present"]) == ("succeeded", 5)
    fetched = [path for _, path in hospital.pacs.requests if path.endswith(SERIES) or "/instances/" in path]
    assert fetched == [f"/studies/{STUDY}/series/{SERIES}/instances/1.2.3.5"]


async def test_a_remote_that_restarts_in_the_middle_loses_nothing(hospital: Hospital) -> None:
    """Cut in the second file, and then away for an answer: the third attempt asks for the rest alone."""
    hospital.pacs.cut_after = 2
    asked = await ask(hospital)
    assert await run_attempt(hospital.services, UUID(asked["job_id"])), "it is to be tried again"
    told = await told_of(hospital, asked)
    assert (told["state"], told["present"]) == ("queued", 1), "what came whole before the cut is kept"
    hospital.pacs.cut_after = None
    answers = iter([None])
    hospital.pacs.answers.append(("GET /studies", lambda: next(answers, hospital.pacs._qido(["", "studies"], {}))))  # pyright: ignore[reportPrivateUsage]
    hospital.pacs.requests.clear()
    told = await worked_off(hospital, asked)
    assert (told["state"], told["present"]) == ("succeeded", 4)
    assert await kept(hospital) == hospital.pacs.files
    fetched = [path for _, path in hospital.pacs.requests if "/instances/" in path or path.endswith(SERIES)]
    assert len(fetched) == 3


async def test_a_remote_that_stays_away_ends_with_the_reason(hospital: Hospital) -> None:
    hospital.pacs.answers.append((".*", lambda: (503, b"text/plain", b"SECRETPATIENT")))
    told = await bring(hospital)
    assert (told["state"], told["problem"]["type"]) == ("failed", "urn:annotomy:problem:remote-failed")
    assert "SECRETPATIENT" not in str(told)


async def test_objects_that_were_not_asked_for_are_not_kept(hospital: Hospital) -> None:
    """The remote answers with an object of another study, and with an unasked one that claims to be of this study."""
    hospital.pacs.strays = [
        ct_instance(study_instance_uid="9.9.9", series_instance_uid="9.9.9.1"),
        ct_instance(study_instance_uid=STUDY, series_instance_uid=SERIES, number=99),
        b"<html>Please sign in</html>",
    ]
    told = await bring(hospital)
    assert (told["state"], told["present"]) == ("succeeded", 4)
    assert told["refused"] == {"another-instance": 2, "not-dicom": 1}
    assert await kept(hospital) == hospital.pacs.files
    assert await kept(hospital, "9.9.9") == {}


async def test_counts_that_do_not_add_up_are_told(hospital: Hospital) -> None:
    """The list names an instance that is never delivered: what came is kept, and the job does not call itself done."""
    lost = ct_instance(study_instance_uid=STUDY, series_instance_uid=SERIES, sop_instance_uid="1.2.3.9")
    hospital.pacs.hold(lost)
    listed = hospital.pacs._qido(["", "studies", STUDY, "series", SERIES, "instances"], {})  # pyright: ignore[reportPrivateUsage]
    del hospital.pacs.files["1.2.3.9"]
    hospital.pacs.answers.append((f"GET /studies/{STUDY}/series/{SERIES}/instances", lambda: listed))
    told = await bring(hospital)
    assert (told["state"], told["expected"], told["present"]) == ("failed", 5, 4)
    assert told["problem"]["type"] == "urn:annotomy:problem:remote-incomplete"
    assert await kept(hospital) == hospital.pacs.files


async def test_a_truncated_object_is_refused_and_the_rest_kept(hospital: Hospital) -> None:
    uid, file = next(iter(hospital.pacs.files.items()))
    hospital.pacs.files[uid] = file[: len(file) - 100]
    told = await bring(hospital)
    assert (told["state"], told["expected"], told["present"]) == ("failed", 4, 3)
    assert told["problem"]["type"] == "urn:annotomy:problem:remote-incomplete"
    assert told["problem"]["refused"] == {"not-dicom": 1}
    assert uid not in await kept(hospital)


async def test_an_empty_answer_brings_nothing_and_says_so(hospital: Hospital) -> None:
    hospital.pacs.answers.append((".*", lambda: (200, b"application/dicom+json", b"[]")))
    told = await bring(hospital)
    assert (told["state"], told["problem"]["type"]) == ("failed", "urn:annotomy:problem:remote-holds-nothing")


async def test_what_the_archive_holds_with_other_bytes_is_never_overwritten(hospital: Hospital) -> None:
    uid, file = next(iter(hospital.pacs.files.items()))
    ours = file.replace(b"made by a test", b"what we have  ")
    owner = await hospital.actor("owner")
    await hospital.keep(owner, hospital.project_id, [ours])
    await bring(hospital)
    assert (await kept(hospital))[uid] == ours


async def test_a_study_that_others_keep_comes_in_as_one_of_ones_own(hospital: Hospital) -> None:
    """Nothing tells that it lies elsewhere already, and what lies there is not touched."""
    someone = await hospital.application.add_user("someone")
    await hospital.keep(someone, None, hospital.files)
    told = await bring(hospital)
    assert (told["state"], told["present"], told["refused"]) == ("succeeded", 4, {})
    async with hospital.services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select count(*) from instances") == 8


async def test_series_that_rules_hide_are_not_fetched(hospital: Hospital) -> None:
    hidden = ct_instance(study_instance_uid=STUDY, series_instance_uid=f"{STUDY}.2").replace(
        b"CS\x02\0CT", b"CS\x02\0SR"
    )
    hospital.pacs.hold(hidden)
    await hospital.rule(effect="ALLOW", attribute="PatientID", operator="PRESENT", value=True)
    await hospital.rule(effect="DENY", level="SERIES", attribute="Modality", value="SR")
    told = await bring(hospital)
    assert (told["state"], told["expected"]) == ("succeeded", 4)
    assert not [path for _, path in hospital.pacs.requests if f"{STUDY}.2" in path]


async def test_rights_are_looked_at_again_when_the_job_runs(hospital: Hospital) -> None:
    asked = await ask(hospital)
    me = (await hospital.get("/users/me")).json()["id"]
    owner = await hospital.headers("owner")
    at = f"/api/v1/projects/{hospital.project_id}/members/{me}"
    assert (await hospital.application.client.delete(at, headers=owner)).status_code == 204
    await run_attempt(hospital.services, UUID(asked["job_id"]))
    async with hospital.services.db.read(SYSTEM) as tx:
        state = await tx.fetchval("select state from jobs where id = $1", UUID(asked["job_id"]))
    assert state == "failed"
    assert hospital.pacs.requests == []


async def test_a_cancelled_retrieval_stops_and_keeps_what_came(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotomy.remotes.bring.TELL_S", 0.0)
    asked = await ask(hospital)
    report = JobContext.report

    async def cancelled_meanwhile(self: JobContext, share: float, message: str = "") -> None:
        await report(self, share, message)
        if share >= 0.5:
            await hospital.post(f"/jobs/{asked['job_id']}/cancel")

    monkeypatch.setattr(JobContext, "report", cancelled_meanwhile)
    told = await worked_off(hospital, asked)
    assert (told["state"], told["present"]) == ("cancelled", 2)
    assert len(await kept(hospital)) == 2


async def test_a_viewer_brings_nothing_in(hospital: Hospital) -> None:
    viewer = await hospital.actor("viewer")
    member = {"user_id": str(viewer.user_id), "role": "viewer"}
    await hospital.post_as("owner", f"/projects/{hospital.project_id}/members", member)
    body = {"project_id": str(hospital.project_id), "study_instance_uid": STUDY}
    answer = await hospital.post_as("viewer", f"/remotes/{hospital.remote_id}/retrievals", body)
    assert answer.status_code == 403
