"""Asking a remote through: its answer passes the rules of the project, and tells what is here only to who sees it."""

import asyncio
from typing import Any

import pytest

from annotomy.actor import SYSTEM
from annotomy.projects.visibility import Rule
from annotomy.remotes.shown import decided
from tests.remotes.hospital import STUDY, Hospital
from tests.support.dicom_files import ct_instance

OTHER = "1.2.826.0.1.200"


def other_study() -> bytes:
    return ct_instance(
        study_instance_uid=OTHER, series_instance_uid=f"{OTHER}.1", patient_id="T-2", study_date="20250101"
    )


def uids(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return sorted(row["study_instance_uid"] for row in answer.json()["items"])


async def test_studies_and_series_of_a_remote_are_found(hospital: Hospital) -> None:
    hospital.pacs.hold(other_study())
    assert uids(await hospital.query()) == [STUDY, OTHER]
    assert uids(await hospital.query(PatientID="T-2")) == [OTHER]
    assert uids(await hospital.query(StudyDate="20260101-20261231")) == [STUDY]
    [row] = (await hospital.query(StudyInstanceUID=STUDY)).json()["items"]
    assert row["attributes"]["00201208"]["Value"] == [4]
    assert row["held"] is False
    at = f"/remotes/{hospital.remote_id}/studies/{STUDY}/series"
    [series] = (await hospital.get(at, project_id=str(hospital.project_id))).json()["items"]
    assert series["attributes"]["00080060"]["Value"] == ["CT"]


async def test_pages_follow_each_other(hospital: Hospital) -> None:
    for n in range(7):
        hospital.pacs.hold(ct_instance(study_instance_uid=f"1.2.3.{n}", series_instance_uid=f"1.2.3.{n}.1"))
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = await hospital.query(limit=3, **cursor)
        seen += uids(page)
        if page.json()["next"] is None:
            break
        cursor = {"cursor": page.json()["next"]}
    assert len(seen) == len(set(seen)) == 8


async def test_only_who_may_ask_asks_and_only_where_the_remote_is_open(hospital: Hospital) -> None:
    path = f"/remotes/{hospital.remote_id}/studies"
    viewer = await hospital.application.headers("viewer")
    me = (await hospital.application.client.get("/api/v1/users/me", headers=viewer)).json()["id"]
    await hospital.post_as("owner", f"/projects/{hospital.project_id}/members", {"user_id": me, "role": "viewer"})
    assert (await hospital.get_as("viewer", path, project_id=str(hospital.project_id))).status_code == 403
    assert (await hospital.get_as("stranger", path, project_id=str(hospital.project_id))).status_code == 404
    assert (await hospital.get_as("admin", path, project_id=str(hospital.project_id))).status_code == 404
    elsewhere = (await hospital.post("/projects", {"name": "not open"})).json()["id"]
    answer = await hospital.get(path, project_id=elsewhere)
    assert (answer.status_code, answer.json()["detail"]) == (404, "There is no such remote.")
    assert hospital.pacs.requests == [], "nobody of them was asked for"


async def test_rules_filter_what_a_remote_answers(hospital: Hospital) -> None:
    hospital.pacs.hold(other_study())
    await hospital.rule(effect="ALLOW", attribute="PatientID", operator="PRESENT", value=True)
    assert uids(await hospital.query()) == [STUDY, OTHER]
    await hospital.rule(effect="DENY", attribute="PatientID", value="t-2")
    assert uids(await hospital.query()) == [STUDY]
    await hospital.rule(effect="LIMIT", attribute="StudyDate", operator="RANGE", value="20270101-")
    assert uids(await hospital.query()) == []


async def test_what_cannot_be_evaluated_is_hidden(hospital: Hospital) -> None:
    """A study level answer tells neither the body part nor the SOP class, and this PACS no age."""
    await hospital.rule(effect="ALLOW", attribute="PatientID", operator="PRESENT", value=True)
    assert uids(await hospital.query()) == [STUDY]
    for rule in (
        {"effect": "DENY", "attribute": "PatientAge", "operator": "RANGE", "value": "090Y-"},
        {"effect": "DENY", "attribute": "BodyPartExamined", "value": "BREAST", "level": "SERIES"},
        {"effect": "DENY", "attribute": "SOPClassUID", "value": "1.2.3", "level": "INSTANCE"},
        {"effect": "LIMIT", "attribute": "BodyPartExamined", "operator": "NE", "value": "BREAST", "level": "SERIES"},
    ):
        await hospital.rule(**rule)
        assert uids(await hospital.query()) == [], rule
        rules = (await hospital.get_as("owner", f"/projects/{hospital.project_id}/rules")).json()["items"]
        newest = max(rules, key=lambda one: one["created_at"])
        owner = await hospital.application.headers("owner")
        at = f"/api/v1/projects/{hospital.project_id}/rules/{newest['id']}"
        assert (await hospital.application.client.delete(at, headers=owner)).status_code == 204
    assert uids(await hospital.query()) == [STUDY]


async def test_a_hidden_modality_shows_in_no_count_and_finds_nothing(hospital: Hospital) -> None:
    report = bytes(
        ct_instance(study_instance_uid=STUDY, series_instance_uid=f"{STUDY}.2").replace(b"CS\x02\0CT", b"CS\x02\0SR")
    )
    hospital.pacs.hold(report)
    [row] = (await hospital.query(StudyInstanceUID=STUDY)).json()["items"]
    assert row["attributes"]["00080061"]["Value"] == ["CT", "SR"]
    await hospital.rule(effect="ALLOW", attribute="PatientID", operator="PRESENT", value=True)
    await hospital.rule(effect="DENY", level="SERIES", attribute="Modality", value="SR")
    [row] = (await hospital.query(StudyInstanceUID=STUDY)).json()["items"]
    assert row["attributes"]["00080061"]["Value"] == ["CT"]
    assert "00201208" not in row["attributes"]
    assert uids(await hospital.query(ModalitiesInStudy="SR")) == []
    at = f"/remotes/{hospital.remote_id}/studies/{STUDY}/series"
    series = (await hospital.get(at, project_id=str(hospital.project_id))).json()["items"]
    assert [one["attributes"]["00080060"]["Value"] for one in series] == [["CT"]]


async def test_hidden_rows_leave_no_gaps(hospital: Hospital) -> None:
    for n in range(12):
        hospital.pacs.hold(
            ct_instance(study_instance_uid=f"1.2.3.{n}", series_instance_uid=f"1.2.3.{n}.1", patient_id=f"X{n % 4}")
        )
    await hospital.rule(effect="ALLOW", attribute="PatientID", value="X3")
    first = await hospital.query(limit=2)
    assert len(uids(first)) == 2
    second = await hospital.query(limit=2, cursor=first.json()["next"])
    assert len(uids(second)) == 1
    assert second.json()["next"] is None


async def test_the_answer_tells_what_is_here_to_who_sees_it(hospital: Hospital) -> None:
    someone = await hospital.application.add_user("someone")
    await hospital.keep(someone, None, hospital.files)
    [row] = (await hospital.query()).json()["items"]
    assert row["held"] is False, "it lies where the asker has no access"
    async with hospital.services.db.write(SYSTEM) as tx:
        await tx.execute("delete from studies")
    owner = await hospital.actor("owner")
    await hospital.keep(owner, hospital.project_id, hospital.files)
    [row] = (await hospital.query()).json()["items"]
    assert row["held"] is True


@pytest.mark.parametrize(
    ("reply", "slug"),
    [
        ((200, b"text/html", b"<h1>Please sign in</h1>"), "remote-unreadable"),
        ((200, b"application/dicom+json", b"<h1>Please sign in</h1>"), "remote-unreadable"),
        ((200, b"application/dicom+json", b'{"0020000D": 1}'), "remote-unreadable"),
        ((200, b"application/dicom+json", b"[" * 100_000), "remote-unreadable"),
        ((302, b"text/html", b""), "remote-refused"),
        ((401, b"text/html", b""), "remote-refused"),
        ((503, b"text/html", b""), "remote-failed"),
        (None, "remote-failed"),
    ],
)
async def test_an_answer_that_is_none_is_told_as_such(hospital: Hospital, reply: Any, slug: str) -> None:
    hospital.pacs.answers.append((".*", lambda: reply))
    answer = await hospital.query()
    assert (answer.status_code, answer.json()["type"]) == (502, f"urn:annotomy:problem:{slug}")


async def test_rows_without_a_uid_are_not_shown(hospital: Hospital) -> None:
    rows = b'[{"00100020":{"vr":"LO","Value":["T-9"]}}, 7, {"0020000D":{"vr":"UI","Value":["../../x"]}}]'
    hospital.pacs.answers.append((".*", lambda: (200, b"application/dicom+json", rows)))
    assert uids(await hospital.query()) == []


async def test_an_endless_answer_is_cut_off(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annotomy.remotes.dicomweb.MAX_QUERY_BYTES", 4 << 20)
    hospital.pacs.endless = True
    answer = await hospital.query()
    assert answer.json()["type"] == "urn:annotomy:problem:remote-unreadable"


async def test_a_slow_answer_is_not_waited_for(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("annotomy.remotes.dicomweb.QUERY_S", 0.2)
    hospital.pacs.stalls = asyncio.Event()
    answer = await hospital.query()
    assert answer.json()["type"] == "urn:annotomy:problem:remote-failed"
    hospital.pacs.stalls.set()


async def test_a_remote_that_was_suspended_by_taking_the_project_out_is_gone_for_it(hospital: Hospital) -> None:
    admin = await hospital.application.headers("admin")
    at = f"/api/v1/remotes/{hospital.remote_id}"
    now = await hospital.application.client.get(at, headers=admin)
    body = {"name": "PACS", "kind": "dicomweb", "dicomweb": {"url": hospital.pacs.url}, "project_ids": []}
    await hospital.application.client.put(at, json=body, headers=admin | {"If-Match": now.headers["etag"]})
    assert (await hospital.query()).status_code == 404


def test_a_rule_about_a_uid_that_is_never_told_shows_nothing() -> None:
    never = {"SOPClassUID"}
    for operator in ("EQ", "NE"):
        assert decided(Rule("ALLOW", "INSTANCE", "SOPClassUID", operator, ("1",)), never).terms == ("false",)
        assert decided(Rule("DENY", "INSTANCE", "SOPClassUID", operator, ("1",)), never).terms == ("true",)
    kept = Rule("ALLOW", "STUDY", "PatientID", "EQ", ("1",))
    assert decided(kept, never) is kept
