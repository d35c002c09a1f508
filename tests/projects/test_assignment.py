"""What a project holds: whole studies, series, instances; and that no rule is left behind by bringing data elsewhere."""

from collections.abc import AsyncIterator
from typing import Any

from annotomy.actor import SYSTEM, Actor
from annotomy.archive.store import Incoming, store_instances
from tests.access.archives import headers_only, invent_one, store
from tests.support.application import Application


async def _actor(application: Application, name: str) -> tuple[Actor, dict[str, str]]:
    headers = await application.headers(name)
    async with application.services.db.read(SYSTEM) as tx:
        user_id = await tx.fetchval("select id from users where username = $1", name)
    return Actor(user_id, name), headers


async def _project(application: Application, headers: dict[str, str]) -> str:
    made = await application.client.post("/api/v1/projects", json={"name": "p"}, headers=headers)
    return f"/api/v1/projects/{made.json()['id']}"


async def _join(application: Application, url: str, admin: dict[str, str], actor: Actor, role: str) -> None:
    body = {"user_id": str(actor.user_id), "role": role}
    assert (await application.client.post(f"{url}/members", json=body, headers=admin)).status_code == 201


async def _sops(application: Application, headers: dict[str, str]) -> set[str]:
    found = (await application.client.get("/dicom-web/instances", headers=headers)).json()
    return {row["00080018"]["Value"][0] for row in found}


def _study() -> list[dict[str, str]]:
    """Two CT instances in one series, one MR instance in another."""
    first = invent_one(Modality="CT")
    second = invent_one(**{name: first[name] for name in ("StudyInstanceUID", "SeriesInstanceUID")}, Modality="CT")
    third = invent_one(StudyInstanceUID=first["StudyInstanceUID"], Modality="MR")
    return [first, second, third]


async def test_one_study_lies_in_many_projects_by_different_parts(application: Application) -> None:
    client = application.client
    (owner, owner_headers), (reader, reader_headers) = (
        await _actor(application, "owner"),
        await _actor(application, "reader"),
    )
    made = _study()
    await store(application.services, owner, made)
    first, second, third = made
    names = {"study_instance_uid": first["StudyInstanceUID"], "series_instance_uid": first["SeriesInstanceUID"]}
    parts: list[tuple[dict[str, str], set[str]]] = [
        (names | {"sop_instance_uid": second["SOPInstanceUID"]}, {second["SOPInstanceUID"]}),
        (names, {first["SOPInstanceUID"], second["SOPInstanceUID"]}),
        ({"study_instance_uid": first["StudyInstanceUID"]}, {one["SOPInstanceUID"] for one in made}),
    ]
    for body, expected in parts:
        url = await _project(application, owner_headers)
        await _join(application, url, owner_headers, reader, "viewer")
        for _ in range(2):
            answer = await client.post(f"{url}/studies", json=body, headers=owner_headers)
            assert answer.status_code == 201, answer.text
        assert await _sops(application, reader_headers) == expected
        listed = (await client.get(f"{url}/studies", headers=reader_headers)).json()
        assert len(listed["items"]) == listed["total"] == 1
        assert {name: listed["items"][0][name] for name in body} == body
        gone = await client.delete(f"{url}/studies/{first['StudyInstanceUID']}", headers=owner_headers)
        assert gone.status_code == 204
        assert await _sops(application, reader_headers) == set()
        gone = await client.delete(f"{url}/studies/{first['StudyInstanceUID']}", headers=owner_headers)
        assert gone.status_code == 404
    assert third["SOPInstanceUID"] in await _sops(application, owner_headers)


async def test_a_reader_brings_nothing_into_a_project_of_their_own(application: Application) -> None:
    (owner, owner_headers), (reader, reader_headers) = (
        await _actor(application, "owner"),
        await _actor(application, "reader"),
    )
    made = _study()
    url = await _project(application, owner_headers)
    await store(application.services, owner, made, url.rsplit("/", 1)[1])
    await _join(application, url, owner_headers, reader, "annotator")
    body = {"study_instance_uid": made[0]["StudyInstanceUID"]}
    own = await _project(application, reader_headers)
    answer = await application.client.post(f"{own}/studies", json=body, headers=reader_headers)
    assert (answer.status_code, answer.json()["permission"]) == (403, "study.share")
    # Nor by storing something more into the study: their inbox then holds what they brought, and no more.
    [brought] = await _store(application, reader, [invent_one(StudyInstanceUID=made[0]["StudyInstanceUID"])])
    await application.client.delete(f"{url}/members/{reader.user_id}", headers=owner_headers)
    assert await _sops(application, reader_headers) == {brought}


async def test_no_rule_is_left_behind_by_bringing_a_study_elsewhere(application: Application) -> None:
    client = application.client
    (owner, owner_headers), (manager, manager_headers) = (
        await _actor(application, "owner"),
        await _actor(application, "manager"),
    )
    made = _study()
    url = await _project(application, owner_headers)
    await store(application.services, owner, made, url.rsplit("/", 1)[1])
    await _join(application, url, owner_headers, manager, "data_manager")
    rule = {
        "effect": "ALLOW",
        "level": "SERIES",
        "attribute": "Modality",
        "operator": "EQ",
        "value": "CT",
        "role": "data_manager",
    }
    assert (await client.post(f"{url}/rules", json=rule, headers=owner_headers)).status_code == 201
    seen = {one["SOPInstanceUID"] for one in made if one["Modality"] == "CT"}
    assert await _sops(application, manager_headers) == seen
    own = await _project(application, manager_headers)
    body: dict[str, Any] = {"study_instance_uid": made[0]["StudyInstanceUID"]}
    assert (await client.post(f"{own}/studies", json=body, headers=manager_headers)).status_code == 201
    assert await _sops(application, manager_headers) == seen, "no more came along than was seen"
    hidden = body | {"series_instance_uid": made[2]["SeriesInstanceUID"]}
    answer = await client.post(f"{own}/studies", json=hidden, headers=manager_headers)
    absent = await client.post(f"{own}/studies", json=body | {"series_instance_uid": "1.2.3"}, headers=manager_headers)
    assert answer.status_code == absent.status_code == 404
    assert answer.json()["detail"] == absent.json()["detail"]
    [brought] = await _store(application, manager, [invent_one(StudyInstanceUID=made[0]["StudyInstanceUID"])])
    assert await _sops(application, manager_headers) == seen | {brought}


async def _store(application: Application, actor: Actor, made: list[dict[str, str]]) -> list[str]:
    async def files() -> AsyncIterator[Incoming]:
        for one in made:
            yield Incoming("f", data=headers_only(one))

    outcomes = await store_instances(application.services, actor, None, files())
    assert [outcome.state for outcome in outcomes] == ["stored"] * len(made)
    return [outcome.sop_instance_uid for outcome in outcomes]


async def test_projects_are_found_by_a_study_that_one_sees_in_them(application: Application) -> None:
    client = application.client
    owner, owner_headers = await _actor(application, "owner")
    reader, reader_headers = await _actor(application, "reader")
    [study] = [invent_one(Modality="CT")]
    await store(application.services, owner, [study])
    holding, empty = await _project(application, owner_headers), await _project(application, owner_headers)
    for url in (holding, empty):
        await _join(application, url, owner_headers, reader, "viewer")
    body = {"study_instance_uid": study["StudyInstanceUID"]}
    assert (await client.post(f"{holding}/studies", json=body, headers=owner_headers)).status_code == 201

    async def found(uid: str) -> list[str]:
        answer = await client.get("/api/v1/projects", params={"study_instance_uid": uid}, headers=reader_headers)
        return [one["id"] for one in answer.json()["items"]]

    assert await found(study["StudyInstanceUID"]) == [holding.rsplit("/", 1)[1]]
    rule = {"effect": "DENY", "level": "STUDY", "attribute": "Modality", "operator": "EQ", "value": "CT"}
    made = await client.post(f"{holding}/rules", json=rule, headers=owner_headers)
    assert made.status_code == 201, made.text
    assert await found(study["StudyInstanceUID"]) == await found("1.2.3") == []
