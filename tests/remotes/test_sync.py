"""The list of what a remote holds: found without asking it, filtered by rules, and never emptied by an answer that may be wrong."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotomy.actor import SYSTEM
from annotomy.remotes.sync import suspicion, sync_due
from annotomy.services import Clock
from tests.remotes.hospital import STUDY, Hospital
from tests.support.dicom_files import ct_instance
from tests.support.jobs import run_attempt


def studies(hospital: Hospital, count: int) -> None:
    """This many at the remote, of the last days."""
    hospital.pacs.files.clear()
    day = hospital.services.clock.now()
    for n in range(count):
        hospital.pacs.hold(
            ct_instance(
                study_instance_uid=f"{STUDY}.{n}",
                series_instance_uid=f"{STUDY}.{n}.1",
                sop_instance_uid=f"{STUDY}.{n}.1.1",
                study_date=f"{day - timedelta(days=n % 5):%Y%m%d}",
                patient_id=f"T-{n}",
            )
        )


async def keep_list(hospital: Hospital, **settings: Any) -> None:
    admin = await hospital.headers("admin")
    at = f"/api/v1/remotes/{hospital.remote_id}/sync"
    answer = await hospital.application.client.put(at, json=settings, headers=admin)
    assert answer.status_code == 200, answer.text


async def run(hospital: Hospital, **wanted: Any) -> dict[str, Any]:
    answer = await hospital.post_as("admin", f"/remotes/{hospital.remote_id}/sync/runs", wanted)
    assert answer.status_code == 202, answer.text
    await work(hospital)
    return await status(hospital)


async def work(hospital: Hospital) -> None:
    async with hospital.services.db.read(SYSTEM) as tx:
        job_id = await tx.fetchval("select job_id from remote_syncs")
    await run_attempt(hospital.services, job_id)


async def status(hospital: Hospital) -> dict[str, Any]:
    return (await hospital.get_as("admin", f"/remotes/{hospital.remote_id}/sync")).json()


async def listed(hospital: Hospital, **match: Any) -> dict[str, str]:
    answer = await hospital.get(
        f"/remotes/{hospital.remote_id}/known-studies", project_id=str(hospital.project_id), **match
    )
    assert answer.status_code == 200, answer.text
    return {one["study_instance_uid"]: one["state"] for one in answer.json()["items"]}


def counts(sync: dict[str, Any]) -> tuple[int, int, int]:
    return sync["present"], sync["missing"], sync["gone"]


async def test_studies_that_never_leave_the_pacs_are_listed_and_can_be_annotated(hospital: Hospital) -> None:
    studies(hospital, 6)
    await keep_list(hospital)
    sync = await run(hospital)
    assert (sync["outcome"], counts(sync)) == ("complete", (6, 0, 0))
    hospital.pacs.requests.clear()
    assert len(await listed(hospital)) == 6
    assert list(await listed(hospital, PatientID="T-3")) == [f"{STUDY}.3"]
    assert hospital.pacs.requests == []
    await hospital.rule(effect="ALLOW", attribute="PatientID", operator="IN", value=["T-1", "T-2"])
    assert sorted(await listed(hospital)) == [f"{STUDY}.1", f"{STUDY}.2"]
    body = {
        "project_id": str(hospital.project_id),
        "study_instance_uid": f"{STUDY}.1",
        "kind": "label",
        "label": "seen",
    }
    assert (await hospital.post_as("owner", "/annotations", body)).status_code == 201


async def test_an_empty_answer_marks_nothing_as_missing(hospital: Hospital) -> None:
    studies(hospital, 3)
    await keep_list(hospital)
    await run(hospital)
    hospital.pacs.files.clear()
    sync = await run(hospital)
    assert (sync["outcome"], counts(sync)) == ("guarded", (3, 0, 0))
    assert "empty" in sync["why"]


async def test_too_many_missing_are_not_believed_until_somebody_has_looked(hospital: Hospital) -> None:
    studies(hospital, 10)
    await keep_list(hospital, missing_share=0.2, grace_days=0)
    await run(hospital)
    for n in range(4):
        del hospital.pacs.files[f"{STUDY}.{n}.1.1"]
    sync = await run(hospital)
    assert (sync["outcome"], counts(sync)) == ("guarded", (10, 0, 0))
    assert "4 of 10" in sync["why"]
    sync = await run(hospital, believe=True)
    assert (sync["outcome"], counts(sync)) == ("complete", (6, 0, 4))
    assert (await listed(hospital))[f"{STUDY}.0"] == "gone", "a row is never deleted"


class Moved(Clock):
    def __init__(self, by: timedelta) -> None:
        self.by = by

    def now(self) -> Any:
        return super().now() + self.by


async def later(hospital: Hospital, *, days: int) -> None:
    """By then the tokens of today have expired."""
    object.__setattr__(hospital.services, "clock", Moved(timedelta(days=days)))
    hospital.sign_out()


async def test_a_missing_study_counts_as_gone_after_the_grace_and_comes_back_when_it_is_seen(
    hospital: Hospital,
) -> None:
    studies(hospital, 10)
    await keep_list(hospital, grace_days=7)
    await run(hospital)
    file = hospital.pacs.files.pop(f"{STUDY}.0.1.1")
    assert counts(await run(hospital)) == (9, 1, 0)
    await later(hospital, days=6)
    assert counts(await run(hospital)) == (9, 1, 0)
    await later(hospital, days=8)
    assert counts(await run(hospital)) == (9, 0, 1)
    hospital.pacs.hold(file)
    assert counts(await run(hospital)) == (10, 0, 0)


@pytest.mark.parametrize(
    "reply",
    [None, (200, b"text/html", b"<h1>OK</h1>"), (200, b"application/dicom+json", b'[{"00080020": {"vr": "DA"}}]')],
)
async def test_a_run_that_fails_judges_nothing_and_says_why(hospital: Hospital, reply: Any) -> None:
    studies(hospital, 3)
    await keep_list(hospital)
    await run(hospital)
    hospital.pacs.answers.append((".*", lambda: reply))
    sync = await run(hospital)
    assert (sync["outcome"], counts(sync)) == ("failed", (3, 0, 0))
    assert sync["why"].startswith("remote-")


async def test_a_list_that_is_cut_off_is_asked_for_in_halves(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotomy.remotes.sync.SPAN_ROWS", 3)
    studies(hospital, 10)
    await keep_list(hospital)
    assert counts(await run(hospital)) == (10, 0, 0)


async def test_a_paused_list_is_not_kept_and_a_resumed_one_is(hospital: Hospital) -> None:
    studies(hospital, 2)
    await keep_list(hospital, state="paused")
    assert await sync_due(hospital.services) == 0
    await keep_list(hospital, state="on")
    assert await sync_due(hospital.services) == 1
    assert await sync_due(hospital.services) == 0, "one run at a time"
    async with hospital.services.db.read(SYSTEM) as tx:
        job_id: UUID = await tx.fetchval("select job_id from remote_syncs")
    await keep_list(hospital, state="paused")
    await run_attempt(hospital.services, job_id)
    assert (await status(hospital))["outcome"] == "none", "paused in the middle, it judges nothing"


@given(known=st.integers(1, 10_000), share=st.floats(0, 1), data=st.data())
def test_absence_is_believed_only_within_the_share_and_never_of_everything(
    known: int, share: float, data: st.DataObject
) -> None:
    missing = data.draw(st.integers(0, known))
    seen = known - missing
    doubt = suspicion(known, missing, seen, share)
    assert bool(doubt) == (missing > 0 and (seen == 0 or missing > max(1, int(share * known))))
