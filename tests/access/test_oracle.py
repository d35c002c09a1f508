"""For random policies and data, what SQL shows is what a plain Python oracle says, whichever door one comes through:
the list of what a person sees is exactly the set of objects that the person can get."""

import random
from dataclasses import asdict
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from annotomy.actor import SYSTEM, Actor
from annotomy.dimse.peers import NewPeer, add_peer
from annotomy.projects.access import visible_instances, visible_page, visible_series, visible_studies, visible_walk
from annotomy.projects.attributes import ATTRIBUTES, normalised
from tests.access import oracle
from tests.access.archives import VALUES, as_objects, invent, store
from tests.access.dimse_door import look
from tests.support.application import Application
from tests.support.dicom_listener import in_thread, listening

ROLES = {"viewer": True, "annotator": True, "auditor": False, "data_manager": True}
"""Whether each reads studies."""
POLICIES_EACH = 12
PERSONS_PEER = "PERSON"
STUDIES = 4


@pytest.mark.parametrize("seed", range(6))
async def test_sql_shows_what_the_oracle_says_through_every_door(application: Application, seed: int) -> None:
    chance = random.Random(seed)  # noqa: S311 - reproducible on purpose
    services = application.services
    admin, person = await application.add_user("admin"), await application.add_user("person")
    admin_headers, headers = await application.headers("admin"), await application.headers("person")
    made = invent(chance, STUDIES)
    archive = as_objects(made)
    await store(services, admin, made)
    async with services.db.write(SYSTEM) as tx:
        await add_peer(tx, NewPeer(PERSONS_PEER, username="person"))
    async with listening(services) as listener:
        for _ in range(POLICIES_EACH):
            projects = [
                await _project(application, chance, admin_headers, person, archive) for _ in range(chance.randint(1, 2))
            ]
            now = services.clock.now()
            expected = {one for one in archive if oracle.sees(person.user_id, projects, archive, one, now)}
            await _compare_sql(application, person, expected)
            await _compare_doors(application, headers, archive, expected)
            await _compare_rest(application, headers, expected)
            for project in projects:
                await _compare_matrix(application, admin_headers, person, project, archive, now)
            await _compare_dimse(listener.port, archive, expected)
            await _forget(application)


async def _project(
    application: Application,
    chance: random.Random,
    admin_headers: dict[str, str],
    person: Actor,
    archive: list[oracle.Instance],
) -> oracle.Project:
    """A project with random holdings, rules and membership, made through the API; the order of steps is random as well."""
    client = application.client
    made = await client.post("/api/v1/projects", json={"name": "p"}, headers=admin_headers)
    url = f"/api/v1/projects/{made.json()['id']}"
    held: set[tuple[str, str | None, str | None]] = set()
    for one in chance.sample(archive, chance.randint(0, len(archive))):
        held.add(
            chance.choice([(one.study, None, None), (one.study, one.series, None), (one.study, one.series, one.sop)])
        )
    now = application.services.clock.now()
    rules = [_rule(chance, person.user_id, now) for _ in range(chance.choice([0, 1, 2, 3, 5, 8]))]
    if rules and chance.random() < 0.6:
        rules.append(oracle.Policy("ALLOW", "STUDY", "PatientID", "PRESENT", True))
    role, valid = chance.choice(list(ROLES)), chance.random() < 0.9
    expires_at = None if valid else (now - timedelta(hours=1)).isoformat()

    async def join() -> None:
        body = {"user_id": str(person.user_id), "role": role, "expires_at": expires_at}
        answer = await client.post(f"{url}/members", json=body, headers=admin_headers)
        assert answer.status_code == 201, answer.text

    async def hold(place: tuple[str, str | None, str | None]) -> None:
        names = ("study_instance_uid", "series_instance_uid", "sop_instance_uid")
        answer = await client.post(f"{url}/studies", json=dict(zip(names, place, strict=True)), headers=admin_headers)
        assert answer.status_code == 201, answer.text

    async def rule(one: oracle.Policy) -> None:
        answer = await client.post(f"{url}/rules", json=_body(one), headers=admin_headers)
        assert answer.status_code == 201, answer.text

    steps: list[Any] = [*((hold, place) for place in held), *((rule, one) for one in rules)]
    chance.shuffle(steps)
    at = chance.randint(0, len(steps))
    for step, argument in steps[:at]:
        await step(argument)
    await join()
    for step, argument in steps[at:]:
        await step(argument)
    draft = {"user_id": str(person.user_id), "rules": [_body(one) for one in rules]}
    foretold = await client.post(f"{url}/rules/preview", json=draft, headers=admin_headers)
    settled = await client.get(f"{url}/rules/preview", params={"user_id": str(person.user_id)}, headers=admin_headers)
    assert foretold.json() == settled.json(), "a preview of rules says what the same rules show once they are saved"
    return oracle.Project(held, rules, role, ROLES[role], valid, made.json()["id"])


def _body(one: oracle.Policy) -> dict[str, Any]:
    body = {name: str(value) if isinstance(value, UUID) else value for name, value in asdict(one).items()}
    for name in ("valid_from", "expires_at"):
        moment: Any = body[name]
        body[name] = moment and moment.isoformat()
    return body


def _rule(chance: random.Random, person: UUID, now: datetime) -> oracle.Policy:
    attribute = chance.choice(list(VALUES))
    values = [value.split("\\")[0] for value in VALUES[attribute] if value]
    operator = chance.choice(["EQ", "NE", "CONTAINS", "RANGE", "IN", "PRESENT"])
    value: object
    match operator:
        case "PRESENT":
            value = chance.random() < 0.5
        case "IN":
            value = chance.sample(values, chance.randint(1, len(values)))
        case "RANGE":
            low, high = sorted(chance.choices(values, k=2), key=lambda text: normalised(attribute, text))
            value = chance.choice([[low, high], [low, ""], ["", high]])
        case "CONTAINS" if ATTRIBUTES[attribute].kind == "text":
            text = chance.choice(values)
            value = text[: chance.randint(1, len(text))].strip() or text
        case _:
            value = chance.choice(values)
    from_now = chance.choice([None, None, None, timedelta(hours=-2), timedelta(hours=2)])
    until = chance.choice([None, None, None, timedelta(hours=-1), timedelta(hours=3)])
    return oracle.Policy(
        effect=chance.choice(["ALLOW", "ALLOW", "ALLOW", "LIMIT", "DENY"]),
        level=chance.choice(["STUDY", "SERIES", "INSTANCE"]),
        attribute=attribute,
        operator=operator,
        value=value,
        role=chance.choice([None, None, None, *ROLES]),
        user_id=chance.choice([None, None, None, person]),
        valid_from=None if from_now is None or (until is not None and until < from_now) else now + from_now,
        expires_at=None if until is None else now + until,
    )


async def _compare_sql(application: Application, person: Actor, expected: set[oracle.Instance]) -> None:
    sops, series, studies = ({getattr(one, level) for one in expected} for level in ("sop", "series", "study"))
    db = application.services.db
    async with db.read(person) as tx:  # the second wall alone
        assert await _column(tx, "select sop_instance_uid from instances") == sops
        assert await tx.fetchval("select count(*) from instance_headers") == len(sops)
        assert await _column(tx, "select series_instance_uid from series") == series
        assert await _column(tx, "select study_instance_uid from studies") == studies
    connection = await asyncpg.connect(db.url)
    try:  # the first wall alone: row-level security is taken down in a transaction that is rolled back
        await connection.execute("begin")
        for table in ("studies", "series", "instances"):
            await connection.execute(f"alter table {table} disable row level security")
        await connection.execute(f"set local app.actor = '{person.user_id}'")
        assert (
            await _column(connection, f"select sop_instance_uid from instances i where {visible_instances('i')}")
            == sops
        )
        assert (
            await _column(connection, f"select series_instance_uid from series se where {visible_series('se')}")
            == series
        )
        found = await _column(connection, f"select study_instance_uid from studies st where {visible_studies('st.id')}")
        assert found == studies
        pages = {
            "st.study_instance_uid": studies, "se.series_instance_uid": series, "i.sop_instance_uid": sops,
        }  # fmt: skip
        for depth, (uid, wanted) in enumerate(pages.items()):
            order = (("st.study_at", "desc"), ("st.id", "desc"), ("se.id", "asc"), ("i.id", "asc"))[: depth + 2]
            for way in (visible_page, visible_walk):
                page = way(depth, f"{uid} as uid", (), order, limit=5000, offset=0)
                rows = [row["uid"] for row in await connection.fetch(page)]
                assert (len(rows), set(rows)) == (len(wanted), wanted), "each once, whatever shows it"
        await connection.execute("rollback")
    finally:
        await connection.close()


async def _forget(application: Application) -> None:
    """The projects of this round; what they held stays in the administrator's inbox."""
    async with application.services.db.write(SYSTEM) as tx:
        await tx.execute("delete from projects where inbox_of is null")


async def _column(tx: Any, sql: str) -> set[str]:
    rows = await tx.fetch(sql)
    assert len(rows) == len({row[0] for row in rows}), "each object is listed once"
    return {row[0] for row in rows}


async def _compare_doors(
    application: Application, headers: dict[str, str], archive: list[oracle.Instance], expected: set[oracle.Instance]
) -> None:
    client = application.client

    async def listed(path: str) -> list[dict[str, Any]]:
        answer = await client.get(f"/dicom-web/{path}?limit=5000", headers=headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def gets(path: str) -> bool:
        answer = await client.get(f"/dicom-web/studies/{path}/metadata", headers=headers)
        assert answer.status_code in (200, 404), answer.text
        if answer.status_code == 200:  # what comes with it is visible as well
            assert {_value(one, "00080018") for one in answer.json()} <= {one.sop for one in expected}
        return answer.status_code == 200

    assert {_value(row, "00080018") for row in await listed("instances")} == {one.sop for one in expected}
    series = await listed("series")
    assert {_value(row, "0020000E") for row in series} == {one.series for one in expected}
    for row in series:
        inside = [one for one in expected if one.series == _value(row, "0020000E")]
        assert _value(row, "00201209") == len(inside)
    studies = await listed("studies")
    assert {_value(row, "0020000D") for row in studies} == {one.study for one in expected}
    for row in studies:
        inside = [one for one in expected if one.study == _value(row, "0020000D")]
        assert _value(row, "00201206") == len({one.series for one in inside})
        assert _value(row, "00201208") == len(inside)
        assert sorted(row["00080061"].get("Value", [])) == sorted({one.attributes["Modality"][0] for one in inside})
    for modality in VALUES["Modality"]:
        found = await client.get(f"/dicom-web/studies?ModalitiesInStudy={modality}", headers=headers)
        having = {one.study for one in expected if one.attributes["Modality"] == [modality]}
        assert {_value(row, "0020000D") for row in found.json()} == having
    for one in archive:
        assert await gets(f"{one.study}/series/{one.series}/instances/{one.sop}") == (one in expected)
    for study, one_series in {(one.study, one.series) for one in archive}:
        assert await gets(f"{study}/series/{one_series}") == any(one.series == one_series for one in expected)
    for study in {one.study for one in archive}:
        assert await gets(study) == any(one.study == study for one in expected)


async def _compare_rest(application: Application, headers: dict[str, str], expected: set[oracle.Instance]) -> None:
    client, found = application.client, set[tuple[str, str | None, str | None]]()
    for project in (await client.get("/api/v1/projects", headers=headers)).json()["items"]:
        answer = await client.get(f"/api/v1/projects/{project['id']}/studies?limit=1000", headers=headers)
        if ROLES[project["role"]]:
            items = answer.json()["items"]
            assert answer.json()["total"] == len({one["study_instance_uid"] for one in items})
            found |= {(one["study_instance_uid"], one["series_instance_uid"], one["sop_instance_uid"]) for one in items}
        else:
            assert answer.status_code == 403
    assert {study for study, _, _ in found} == {one.study for one in expected}
    assert {series for _, series, _ in found if series} <= {one.series for one in expected}
    assert {sop for _, _, sop in found if sop} <= {one.sop for one in expected}


async def _compare_matrix(
    application: Application,
    admin_headers: dict[str, str],
    person: Actor,
    project: oracle.Project,
    archive: list[oracle.Instance],
    now: datetime,
) -> None:
    """What the matrix tells the administrator of the person is what the oracle says of them, row by row."""
    seen = {one.sop for one in archive if oracle.sees_in(person.user_id, project, archive, one, now)}
    for level in ("study", "series"):
        answer = await application.client.get(
            f"/api/v1/projects/{project.id}/matrices/data",
            params={"level": level, "q": "person", "row_limit": 200},
            headers=admin_headers,
        )
        matrix = answer.json()
        assert [one["username"] for one in matrix["columns"]["items"]] == ["person"]
        for row, [cell] in zip(matrix["rows"]["items"], matrix["cells"], strict=True):
            inside = {one.sop for one in archive if getattr(one, level) == row[f"{level}_instance_uid"]}
            if not inside & seen:
                assert cell["access"] == "none", (row, cell)
            elif inside <= seen:
                in_parts = {"limited"} if not project.rules else set[str]()
                assert cell["access"] in {"full", "read_only"} | in_parts, (row, cell)
            else:
                assert cell["access"] == "limited", (row, cell)


async def _compare_dimse(port: int, archive: list[oracle.Instance], expected: set[oracle.Instance]) -> None:
    listed, received = await in_thread(lambda: look(port, PERSONS_PEER, {one.study for one in archive}))
    for level, name in (("STUDY", "study"), ("SERIES", "series"), ("IMAGE", "sop")):
        uids = {getattr(one, name) for one in expected}
        assert (set(listed[level]), len(listed[level])) == (uids, len(uids)), level
    assert received == {one.sop for one in expected}


def _value(row: dict[str, Any], tag: str) -> Any:
    return row[tag]["Value"][0]
