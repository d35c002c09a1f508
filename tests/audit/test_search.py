"""The log is searched by any combination of conditions, a page at a time, and each look into it is a record."""

import pytest

from tests.audit.records import lines, moment, stored, wrote
from tests.support.application import Application


async def test_filters_combine_and_each_of_them_narrows(application: Application) -> None:
    admin, owner = await application.headers("admin"), await application.headers("owner")
    project = (await application.client.post("/api/v1/projects", json={"name": "p"}, headers=owner)).json()["id"]
    person = await application.add_user("someone")
    hit = {"object_kind": "study", "object_id": "1.2.3", "study_instance_uid": "1.2.3", "project_id": project}
    said = {"reason": "환자 의뢰 100% 확인", "outcome": "success"}
    at = moment("2024-05-06T07:08:09")
    await wrote(application.services, person, at, "study.retrieved", patient="p" * 32, **hit, **said)
    for other in (
        {"object_kind": "series"},
        {"object_id": "1.2.4", "study_instance_uid": "1.2.4"},
        {"project_id": None},
        {"reason": "환자 의뢰 100 확인"},
        {"outcome": "denied"},
    ):
        await wrote(application.services, person, at, "study.retrieved", patient="p" * 32, **{**hit, **said, **other})
    await wrote(application.services, person, at, "study.read", patient="p" * 32, **hit, **said)
    await wrote(
        application.services, person, moment("2024-05-07T00:00:00"), "study.retrieved", patient="p" * 32, **hit, **said
    )
    asked = {
        "since": "2024-05-06T00:00:00Z",
        "until": "2024-05-07T00:00:00Z",
        "actor": "someone",
        "action": "study.retrieved",
        "object": "1.2.3",
        "object_kind": "study",
        "study_instance_uid": "1.2.3",
        "project_id": project,
        "patient": "p" * 32,
        "outcome": "success",
        "reason": "100% 확",
    }
    found = await lines(application, admin, **asked)
    assert len(found) == 1
    narrower = {"actor", "patient"}  # nothing else was written that these alone keep out
    for name in asked.keys() - narrower - {"since", "object", "study_instance_uid"}:
        rest = {key: value for key, value in asked.items() if key != name}
        assert len(await lines(application, admin, **rest)) == 2, name


async def test_a_reason_is_found_whatever_the_case_and_the_form_of_its_letters(application: Application) -> None:
    admin = await application.headers("admin")
    person = await application.add_user("someone")
    await wrote(application.services, person, moment("2024-01-01"), "study.read", reason="Audit by the 식약처")
    decomposed = "식약처".encode().decode()
    assert len(await lines(application, admin, reason="aUDIT")) == 1
    assert len(await lines(application, admin, reason=decomposed)) == 1
    assert await lines(application, admin, reason="audit%") == []


async def test_records_of_a_session_and_of_a_key_are_found_by_their_id(application: Application) -> None:
    admin, owner = await application.headers("admin"), await application.headers("owner")
    issued = (await application.client.post("/api/v1/api-keys", json={"name": "k"}, headers=owner)).json()
    by_key = {"Authorization": f"Bearer {issued['key']}"}
    await application.client.get("/dicom-web/studies", headers=by_key)
    [line] = await lines(application, admin, credential_id=issued["id"])
    assert (line["action"], line["actor_kind"], line["key_id"]) == ("study.searched", "api_key", issued["id"])
    [session] = {one["session_id"] for one in await lines(application, admin, action="api_key.issued")}
    assert {"api_key.issued"} <= {one["action"] for one in await lines(application, admin, credential_id=session)}


@pytest.mark.parametrize("order", ["oldest", "newest"])
async def test_pages_hold_every_record_once_in_either_order(application: Application, order: str) -> None:
    admin = await application.headers("admin")
    person = await application.add_user("someone")
    for number in range(7):
        await wrote(application.services, person, moment("2024-01-01"), "test.done", object_id=str(number))
    seen: list[str] = []
    after = "0"
    while after is not None:
        answer = await application.client.get(
            "/api/v1/audit",
            params={"action": "test", "limit": 3, "after": after, "order": order, "with_total": True},
            headers=admin,
        )
        assert answer.json()["total"] == 7
        seen += [line["object"]["id"] for line in answer.json()["items"]]
        after = answer.json()["next"]
    expected = [str(number) for number in range(7)]
    assert seen == (expected if order == "oldest" else expected[::-1])


async def test_every_look_into_the_log_is_recorded_with_its_filter(application: Application) -> None:
    admin = await application.headers("admin")
    for _ in range(2):
        await lines(application, admin, actor="somebody", reason="why")
    looks = [one["detail"] for one in await lines(application, admin, action="audit.viewed")]
    assert len(looks) == 2
    assert looks[0]["filter"] == {"actor": "somebody", "reason": "why"}
    assert looks[0]["records"] == 0


async def test_a_failed_sign_in_is_no_success(application: Application) -> None:
    admin = await application.headers("admin")
    await application.client.post("/api/v1/auth/token", json={"username": "admin", "password": "wrong wrong wrong"})
    [line] = await lines(application, admin, outcome="denied")
    assert line["action"] == "security.sign_in_refused"


async def test_everything_about_a_study_is_found_by_its_uid(application: Application) -> None:
    admin, owner = await application.headers("admin"), await application.headers("owner")
    study = await stored(application, owner)
    await application.client.get(f"/dicom-web/studies/{study}/metadata", headers=owner)
    actions = {one["action"] for one in await lines(application, admin, study_instance_uid=study)}
    assert {"study.stored", "study.read"} <= actions
