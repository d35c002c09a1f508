"""Pushing: each instance has an outcome, what was not taken is tried again, and what nobody accepted never leaves."""

from datetime import timedelta
from typing import Any
from uuid import UUID

from annotomy.actor import SYSTEM
from annotomy.db.identifiers import new_id
from annotomy.remotes.push import FIRST_PAUSE_S, LONGEST_PAUSE_S, MAX_ATTEMPTS, next_attempt, push_due
from tests.remotes.hospital import STUDY, Hospital
from tests.support.jobs import run_attempt


async def held(hospital: Hospital) -> list[str]:
    """The study lies in the project and not at the remote; the instances' UIDs."""
    uids = list(hospital.pacs.files)
    await hospital.keep(await hospital.actor("owner"), hospital.project_id, hospital.files)
    hospital.pacs.files.clear()
    return uids


async def ask(hospital: Hospital, **what: Any) -> dict[str, Any]:
    body = {"project_id": str(hospital.project_id), "study_instance_uid": STUDY} | what
    asked = await hospital.post(f"/remotes/{hospital.remote_id}/pushes", body)
    assert asked.status_code == 202, asked.text
    return asked.json()


async def told_of(hospital: Hospital, asked: dict[str, Any]) -> dict[str, Any]:
    return (await hospital.get(f"/remotes/{hospital.remote_id}/pushes/{asked['id']}")).json()


async def attempt(hospital: Hospital, asked: dict[str, Any]) -> dict[str, Any]:
    """The attempt that is queued, by whatever queued it."""
    async with hospital.services.db.read(SYSTEM) as tx:
        job_id = await tx.fetchval("select job_id from remote_pushes where id = $1", UUID(asked["id"]))
    await run_attempt(hospital.services, job_id)
    return await told_of(hospital, asked)


async def next_one(hospital: Hospital) -> int:
    """The pause is over and the schedule looks."""
    async with hospital.services.db.write(SYSTEM) as tx:
        await tx.execute("update remote_pushes set next_attempt_at = now() - interval '1 second'")
    return await push_due(hospital.services)


async def test_a_study_is_sent_bit_for_bit_with_an_outcome_for_each_instance(hospital: Hospital) -> None:
    uids = await held(hospital)
    told = await attempt(hospital, await ask(hospital))
    assert (told["state"], told["counts"], told["problem"]) == ("sent", {"sent": 4}, None)
    assert sorted(one["sop_instance_uid"] for one in told["instances"]) == sorted(uids)
    assert sorted(hospital.pacs.files.values()) == sorted(hospital.files)
    listed = await hospital.get(f"/remotes/{hospital.remote_id}/pushes", project_id=str(hospital.project_id))
    assert [one["state"] for one in listed.json()["items"]] == ["sent"]


async def test_a_remote_that_is_away_gets_it_when_it_is_back(hospital: Hospital) -> None:
    await held(hospital)
    asked = await ask(hospital)
    hospital.pacs.answers.append((".*", lambda: None))
    told = await attempt(hospital, asked)
    assert (told["state"], told["attempts"], told["counts"]) == ("queued", 1, {"pending": 4})
    assert told["problem"]["type"] == "urn:annotomy:problem:remote-failed"
    assert await push_due(hospital.services) == 0, "the pause is not over"
    hospital.pacs.answers.clear()
    assert await next_one(hospital) == 1
    assert await next_one(hospital) == 0, "one attempt at a time"
    told = await attempt(hospital, asked)
    assert (told["state"], told["counts"]) == ("sent", {"sent": 4})


async def test_what_the_remote_is_silent_about_was_not_taken(hospital: Hospital) -> None:
    uids = await held(hospital)
    hospital.pacs.silent_about = {uids[0]}
    asked = await ask(hospital)
    told = await attempt(hospital, asked)
    assert (told["state"], told["counts"]) == ("queued", {"pending": 1, "sent": 3})
    hospital.pacs.silent_about.clear()
    hospital.pacs.files.clear()
    await next_one(hospital)
    told = await attempt(hospital, asked)
    assert (told["state"], told["counts"]) == ("sent", {"sent": 4})
    assert list(hospital.pacs.files) == [uids[0]], "what was taken is not sent again"


async def test_a_success_that_is_a_web_page_is_none(hospital: Hospital) -> None:
    await held(hospital)
    hospital.pacs.answers.append((".*", lambda: (200, b"text/html", b"<h1>OK</h1>")))
    told = await attempt(hospital, await ask(hospital))
    assert (told["state"], told["counts"]) == ("queued", {"pending": 4})
    assert told["problem"]["type"] == "urn:annotomy:problem:remote-unreadable"


async def test_a_refusal_is_a_dead_letter_with_its_reason_and_can_be_tried_anew(hospital: Hospital) -> None:
    uids = await held(hospital)
    hospital.pacs.refuses = {uids[0]: 0x0122, uids[1]: 0xA700}
    asked = await ask(hospital)
    told = await attempt(hospital, asked)
    assert (told["state"], told["counts"]) == ("queued", {"refused": 1, "pending": 1, "sent": 2}), (
        "out of resources passes"
    )
    del hospital.pacs.refuses[uids[1]]
    await next_one(hospital)
    told = await attempt(hospital, asked)
    assert (told["state"], told["counts"]) == ("dead", {"refused": 1, "sent": 3})
    assert {one["reason"] for one in told["instances"] if one["state"] == "refused"} == {
        "refused by the remote (0122H)"
    }
    assert await next_one(hospital) == 0
    hospital.pacs.refuses.clear()
    again = await hospital.post(f"/remotes/{hospital.remote_id}/pushes/{asked['id']}/retry")
    assert again.status_code == 202, again.text
    told = await attempt(hospital, asked)
    assert (told["state"], told["counts"]) == ("sent", {"sent": 4})


async def test_attempts_are_used_up_in_the_end(hospital: Hospital) -> None:
    await held(hospital)
    asked = await ask(hospital)
    hospital.pacs.answers.append((".*", lambda: (503, b"text/plain", b"")))
    async with hospital.services.db.write(SYSTEM) as tx:
        await tx.execute("update remote_pushes set attempts = $1", MAX_ATTEMPTS - 1)
    told = await attempt(hospital, asked)
    assert (told["state"], told["problem"]["type"]) == ("dead", "urn:annotomy:problem:remote-failed")


async def test_a_cancelled_push_is_not_sent(hospital: Hospital) -> None:
    await held(hospital)
    asked = await ask(hospital)
    cancelled = await hospital.post(f"/remotes/{hospital.remote_id}/pushes/{asked['id']}/cancel")
    assert cancelled.json()["state"] == "cancelled"
    assert (await attempt(hospital, asked))["state"] == "cancelled"
    assert hospital.pacs.files == {}


async def mask(hospital: Hospital, sop_instance_uid: str, state: str) -> None:
    """The instance shows a mask in this state."""
    owner = await hospital.actor("owner")
    segmentation = new_id()
    async with hospital.services.db.write(SYSTEM) as tx:
        await tx.execute(
            "insert into segmentations (id, project_id, study_instance_uid, series_instance_uid, state, created_by)"
            " values ($1, $2, $3, '1.2', $4, $5)",
            segmentation, hospital.project_id, STUDY, state, owner.user_id,
        )  # fmt: skip
        await tx.execute(
            "insert into segmentation_versions (segmentation_id, version, label, state, shape_kji, affine_lps, created_by,"
            " sop_instance_uid) values ($1, 1, '', $2, '{1,1,1}', $3, $4, $5)",
            segmentation, state, [0.0] * 16, owner.user_id, sop_instance_uid,
        )  # fmt: skip


async def test_proposals_that_nobody_accepted_are_never_sent(hospital: Hospital) -> None:
    proposal, rejected, accepted, image = await held(hospital)
    for uid, state in ((proposal, "proposal"), (rejected, "rejected"), (accepted, "approved")):
        await mask(hospital, uid, state)
    told = await attempt(hospital, await ask(hospital))
    assert (told["state"], told["counts"]) == ("sent", {"sent": 2})
    assert sorted(hospital.pacs.files) == sorted([accepted, image])
    body = {"project_id": str(hospital.project_id), "study_instance_uid": STUDY, "sop_instance_uids": [proposal]}
    answer = await hospital.post(f"/remotes/{hospital.remote_id}/pushes", body)
    assert (answer.status_code, answer.json()["type"]) == (409, "urn:annotomy:problem:nothing-to-push")


async def test_a_mask_that_is_rejected_after_it_was_asked_for_stays_here(hospital: Hospital) -> None:
    uids = await held(hospital)
    asked = await ask(hospital, sop_instance_uids=uids[:1])
    await mask(hospital, uids[0], "rejected")
    told = await attempt(hospital, asked)
    assert (told["state"], told["counts"]) == ("dead", {"refused": 1})
    assert hospital.pacs.files == {}


async def test_who_lost_the_right_sends_nothing(hospital: Hospital) -> None:
    await held(hospital)
    asked = await ask(hospital)
    manager = await hospital.actor("manager")
    owner = await hospital.headers("owner")
    at = f"/api/v1/projects/{hospital.project_id}/members/{manager.user_id}"
    await hospital.application.client.delete(at, headers=owner)
    async with hospital.services.db.read(SYSTEM) as tx:
        job_id = await tx.fetchval("select job_id from remote_pushes where id = $1", UUID(asked["id"]))
    await run_attempt(hospital.services, job_id)
    async with hospital.services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select state from remote_pushes") == "dead"
    assert hospital.pacs.files == {}


def test_pauses_grow_to_an_hour_and_reach_over_a_night() -> None:
    from datetime import UTC, datetime

    now = datetime(2026, 1, 1, tzinfo=UTC)
    pauses = [next_attempt(now, n) - now for n in range(1, MAX_ATTEMPTS)]
    assert pauses[0] == timedelta(seconds=FIRST_PAUSE_S)
    assert pauses[-1] == timedelta(seconds=LONGEST_PAUSE_S)
    assert pauses == sorted(pauses)
    assert sum(pauses, timedelta()) > timedelta(hours=6)
