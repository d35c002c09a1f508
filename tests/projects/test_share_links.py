"""Share links: who holds one sees what it names, what its maker sees at that moment, and nothing else."""

import random
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from annotomy.actor import SYSTEM, Actor
from annotomy.identity.authenticate import Authenticator
from annotomy.projects.access import visible_instances, visible_page, visible_series, visible_studies, visible_walk
from annotomy.projects.share_links import share_actor
from tests.access.archives import invent, invent_one, store
from tests.identity.people import event_types, execute, until
from tests.support.application import Application
from tests.support.share_links import make_share_link, open_share_link, share_link_headers

MODALITIES = ("CT", "MR")


class Shared:
    """A project of `maker` with two studies: one of a CT and an MR series, one of its own."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.client = application.client

    async def made(self) -> "Shared":
        self.maker = await self.application.headers("maker")
        answer = await self.client.post("/api/v1/projects", json={"name": "shared"}, headers=self.maker)
        self.project: str = answer.json()["id"]
        self.maker_id = (await self.client.get("/api/v1/users/me", headers=self.maker)).json()["id"]
        first = invent_one(Modality="CT", PatientID="ONE")
        second = invent_one(Modality="MR") | {
            name: first[name] for name in first if name.startswith(("Study", "Patient", "Accession"))
        }
        other = invent_one(PatientID="OTHER")
        actor = await share_free_actor(self.application, "maker")
        await store(self.application.services, actor, [first, second, other], self.project)
        self.study, self.ct, self.mr = (
            first["StudyInstanceUID"],
            first["SeriesInstanceUID"],
            second["SeriesInstanceUID"],
        )
        self.other = other["StudyInstanceUID"]
        self.instance = first["SOPInstanceUID"]
        return self

    async def link(self, studies: dict[str, list[str]] | None = None, **fields: Any) -> dict[str, Any]:
        return await make_share_link(
            self.application, self.maker, self.project, {self.study: []} if studies is None else studies, **fields
        )

    async def holder(self, studies: dict[str, list[str]] | None = None, **fields: Any) -> dict[str, str]:
        return await share_link_headers(
            self.application, self.maker, self.project, {self.study: []} if studies is None else studies, **fields
        )

    async def seen(self, headers: dict[str, str]) -> set[str]:
        answer = await self.client.get("/dicom-web/series", headers=headers)
        assert answer.status_code == 200, answer.text
        return {row["0020000E"]["Value"][0] for row in answer.json()}

    async def rule(self, **fields: Any) -> None:
        answer = await self.client.post(f"/api/v1/projects/{self.project}/rules", json=fields, headers=self.maker)
        assert answer.status_code == 201, answer.text

    async def open(self, token: str, **fields: Any) -> httpx.Response:
        return await self.client.post("/api/v1/share", json={"token": token, **fields})


async def share_free_actor(application: Application, username: str) -> Actor:
    async with application.services.db.read(SYSTEM) as tx:
        return Actor(await tx.fetchval("select id from users where username = $1", username), username)


@pytest.fixture
async def shared(application: Application) -> Shared:
    return await Shared(application).made()


async def test_a_link_shows_the_study_that_it_names_and_no_other(shared: Shared) -> None:
    holder = await shared.holder()
    assert await shared.seen(holder) == {shared.ct, shared.mr}
    for path, status in (
        (f"studies/{shared.study}/metadata", 200),
        (f"studies/{shared.study}/series/{shared.ct}/metadata", 200),
        (f"studies/{shared.other}/metadata", 404),
        (f"studies/{shared.study}", 403),
    ):
        assert (await shared.client.get(f"/dicom-web/{path}", headers=holder)).status_code == status, path


async def test_a_link_to_one_series_shows_the_study_with_that_series_alone(shared: Shared) -> None:
    holder = await shared.holder({shared.study: [shared.ct]})
    assert await shared.seen(holder) == {shared.ct}
    [study] = (await shared.client.get("/dicom-web/studies", headers=holder)).json()
    assert study["00201206"]["Value"] == [1]
    assert study["00080061"]["Value"] == ["CT"]
    hidden = await shared.client.get(f"/dicom-web/studies/{shared.study}/series/{shared.mr}/metadata", headers=holder)
    assert hidden.status_code == 404


async def test_a_link_reaches_nothing_but_what_it_is_for(shared: Shared) -> None:
    """Its maker's own things least of all."""
    holder = await shared.holder()
    for method, path in (
        ("GET", "/api/v1/users/me"),
        ("GET", "/api/v1/api-keys"),
        ("POST", "/api/v1/api-keys"),
        ("GET", "/api/v1/projects"),
        ("GET", f"/api/v1/projects/{shared.project}/studies"),
        ("GET", f"/api/v1/projects/{shared.project}/share-links"),
        ("GET", f"/api/v1/annotations?project_id={shared.project}"),
        ("GET", f"/api/v1/segmentations?project_id={shared.project}"),
        ("GET", "/api/v1/events/log"),
        ("POST", "/dicom-web/studies"),
    ):
        answer = await shared.client.request(method, path, headers=holder, json={"name": "k"})
        assert answer.status_code == 403, f"{method} {path}: {answer.text}"


async def test_download_is_a_right_of_its_own_and_its_makers(shared: Shared) -> None:
    headers = await shared.holder(actions=["view", "download"])
    answer = await shared.client.get(f"/dicom-web/studies/{shared.study}", headers=headers)
    assert answer.status_code == 200
    # A role that shares and does not export gives out no downloads, and takes back those that it gave.
    await _rerole(shared, ["study.read", "study.share"])
    refused = await shared.client.post(
        f"/api/v1/projects/{shared.project}/share-links",
        json={
            "name": "x",
            "studies": [{"study_instance_uid": shared.study}],
            "actions": ["download"],
            "expires_at": (shared.application.services.clock.now() + timedelta(days=1)).isoformat(),
        },
        headers=shared.maker,
    )
    assert refused.status_code == 403
    shared.application.app.state.authenticator._known.clear()  # pyright: ignore[reportPrivateUsage] - four seconds pass
    assert (await shared.client.get(f"/dicom-web/studies/{shared.study}", headers=headers)).status_code == 403
    assert await shared.seen(headers) == {shared.ct, shared.mr}


async def test_rules_hold_for_a_link_at_the_moment_of_use(shared: Shared) -> None:
    holder = await shared.holder()
    await shared.rule(effect="ALLOW", level="STUDY", attribute="PatientID", operator="PRESENT", value=True)
    assert await shared.seen(holder) == {shared.ct, shared.mr}
    await shared.rule(effect="LIMIT", level="SERIES", attribute="Modality", operator="EQ", value="MR")
    assert await shared.seen(holder) == {shared.mr}
    await shared.rule(effect="DENY", level="STUDY", attribute="PatientID", operator="EQ", value="ONE")
    assert await shared.seen(holder) == set()


async def test_a_study_of_which_the_maker_sees_only_what_the_link_does_not_name_is_not_shown(shared: Shared) -> None:
    holder = await shared.holder({shared.study: [shared.ct]})
    await shared.rule(effect="ALLOW", level="SERIES", attribute="Modality", operator="EQ", value="MR")
    assert (await shared.client.get("/dicom-web/studies", headers=holder)).json() == []
    answer = await shared.client.get(f"/dicom-web/studies/{shared.study}/metadata", headers=holder)
    assert answer.status_code == 404


async def test_what_leaves_the_project_leaves_the_link(shared: Shared) -> None:
    holder = await shared.holder()
    await shared.client.delete(f"/api/v1/projects/{shared.project}/studies/{shared.study}", headers=shared.maker)
    assert await shared.seen(holder) == set()


async def test_a_revoked_link_ends_at_once_everywhere(shared: Shared) -> None:
    link = await shared.link()
    opened = await open_share_link(shared.application, link["token"])
    holder = {"Authorization": f"Bearer {opened['access_token']}"}
    other_process = Authenticator(shared.application.services, shared.application.app.state.signer, share_actor)
    remembered = await other_process.from_header(holder["Authorization"])
    url = f"/api/v1/projects/{shared.project}/share-links/{link['id']}"
    assert (await shared.client.delete(url, headers=shared.maker)).status_code == 204
    # A process that still remembers the link sees nothing by it: the database itself asks.
    async with shared.application.services.db.read(remembered) as tx:
        assert await tx.fetchval("select count(*) from instances") == 0
    await until(shared.application, holder, 401, "/dicom-web/studies")
    assert (await shared.open(link["token"])).json()["type"] == "urn:annotomy:problem:share-refused"
    assert (await shared.client.delete(url, headers=shared.maker)).status_code == 204, "twice is no error"


async def test_a_link_ends_with_its_time(shared: Shared) -> None:
    link = await shared.link()
    opened = await open_share_link(shared.application, link["token"])
    actor = await shared.application.app.state.authenticator.from_credential(opened["access_token"])
    await execute(shared.application, "update share_links set expires_at = now()")
    async with shared.application.services.db.read(actor) as tx:
        assert await tx.fetchval("select count(*) from instances") == 0
    assert (await shared.open(link["token"])).status_code == 403


@pytest.mark.parametrize("loss", ["suspended", "removed", "role", "expired"])
async def test_a_maker_who_lost_the_right_takes_the_link_along(shared: Shared, loss: str) -> None:
    link = await shared.link()
    opened = await open_share_link(shared.application, link["token"])
    holder = {"Authorization": f"Bearer {opened['access_token']}"}
    admin = await shared.application.headers("admin")
    match loss:
        case "suspended":
            answer = await shared.client.post(f"/api/v1/users/{shared.maker_id}/suspend", headers=admin)
            assert answer.is_success, answer.text
            await until(shared.application, holder, 401, "/dicom-web/studies")
        case "removed":
            await _second_administrator(shared)
            answer = await shared.client.delete(
                f"/api/v1/projects/{shared.project}/members/{shared.maker_id}", headers=shared.maker
            )
            assert answer.status_code == 204, answer.text
        case "role":
            await _rerole(shared, ["study.read"])
        case _:
            await execute(shared.application, "update project_members set expires_at = now()")
    if loss != "suspended":
        answer = await shared.client.get("/dicom-web/studies", headers=holder)
        assert answer.status_code == 401 or answer.json() == []
    assert (await shared.open(link["token"])).status_code == 403


async def test_a_link_opens_as_often_as_it_may(shared: Shared) -> None:
    link = await shared.link(max_uses=2)
    answers = [await shared.open(link["token"]) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 403]
    holder = {"Authorization": f"Bearer {answers[1].json()['access_token']}"}
    assert await shared.seen(holder) == {shared.ct, shared.mr}, "who opened it goes on"
    [listed] = (await _list(shared, shared.maker))["items"]
    assert (listed["state"], listed["uses"]) == ("used_up", 2)


async def test_a_link_may_take_a_password_and_slows_down_guesses(shared: Shared) -> None:
    link = await shared.link(password="vier Füße im Wald", max_uses=1)
    needed = (await shared.open(link["token"])).json()
    assert needed["type"] == "urn:annotomy:problem:share-password-needed"
    wrong = await shared.open(link["token"], password="not this one")
    assert wrong.json()["type"] == needed["type"]
    assert (await shared.open(link["token"], password="vier Füße im Wald")).status_code == 200
    guarded = await shared.link(password="vier Füße im Wald")
    guesses = [await shared.open(guarded["token"], password=f"guess number {n}") for n in range(7)]
    assert guesses[-1].status_code == 429
    assert "password" not in str((await _list(shared, shared.maker))["items"][0]).replace("has_password", "")


async def test_the_token_is_shown_once_and_stored_as_a_hash(shared: Shared) -> None:
    link = await shared.link()
    async with shared.application.services.db.read(SYSTEM) as tx:
        rows = [
            str([dict(row) for row in await tx.fetch(f"select * from {table}")])
            for table in ("share_links", "events", "audit_outbox", "audit")
        ]
    assert all(link["token"] not in row for row in rows)
    assert link["token"] not in str(await _list(shared, shared.maker))
    assert link["path"].partition("#")[0] == "/share", "what follows never reaches a server"


@pytest.mark.parametrize(
    "fields",
    [
        {"expires_at": "2020-01-01T00:00:00Z"},
        {"expires_at": "2099-01-01T00:00:00Z"},
        {"studies": []},
        {"max_uses": 0},
        {"password": "short"},
        {"name": " "},
        {"actions": ["delete"]},
    ],
)
async def test_a_link_without_bounds_is_not_made(shared: Shared, fields: dict[str, Any]) -> None:
    body = {
        "name": "x",
        "studies": [{"study_instance_uid": shared.study}],
        "expires_at": (shared.application.services.clock.now() + timedelta(days=1)).isoformat(),
    } | fields
    answer = await shared.client.post(f"/api/v1/projects/{shared.project}/share-links", json=body, headers=shared.maker)
    assert answer.status_code == 400, answer.text


async def test_links_are_listed_and_ended_by_their_maker_and_by_who_manages_the_project(shared: Shared) -> None:
    colleague = await shared.application.headers("colleague")
    colleague_id = (await shared.client.get("/api/v1/users/me", headers=colleague)).json()["id"]
    await shared.client.post(
        f"/api/v1/projects/{shared.project}/members",
        json={"user_id": colleague_id, "role": "data_manager"},
        headers=shared.maker,
    )
    mine = await make_share_link(shared.application, colleague, shared.project, {shared.study: [shared.ct]})
    theirs = await shared.link()
    assert [one["id"] for one in (await _list(shared, colleague))["items"]] == [mine["id"]]
    listed = (await _list(shared, shared.maker))["items"]
    assert [one["id"] for one in listed] == [theirs["id"], mine["id"]]
    assert listed[1]["creator"] == "colleague"
    assert listed[1]["studies"] == [{"study_instance_uid": shared.study, "series_instance_uids": [shared.ct]}]
    url = f"/api/v1/projects/{shared.project}/share-links"
    assert (await shared.client.delete(f"{url}/{theirs['id']}", headers=colleague)).status_code == 404
    assert (await shared.client.delete(f"{url}/{mine['id']}", headers=shared.maker)).status_code == 204
    assert (await _list(shared, colleague))["items"][0]["state"] == "revoked"
    outsider = await shared.application.headers("outsider")
    assert (await shared.client.get(url, headers=outsider)).status_code == 404


async def test_what_the_maker_does_not_see_is_not_shared(shared: Shared) -> None:
    elsewhere = invent_one()
    await store(shared.application.services, await shared.application.add_user("else"), [elsewhere])
    body = {
        "name": "x",
        "studies": [{"study_instance_uid": elsewhere["StudyInstanceUID"]}],
        "expires_at": (shared.application.services.clock.now() + timedelta(days=1)).isoformat(),
    }
    answer = await shared.client.post(f"/api/v1/projects/{shared.project}/share-links", json=body, headers=shared.maker)
    assert answer.status_code == 404


async def test_every_step_of_a_link_is_audited_with_the_link_as_credential(shared: Shared) -> None:
    link = await shared.link(password="vier Füße im Wald")
    await shared.open(link["token"], password="not this one")
    opened = await open_share_link(shared.application, link["token"], password="vier Füße im Wald")
    holder = {"Authorization": f"Bearer {opened['access_token']}"}
    await shared.seen(holder)
    assert (await shared.client.get(f"/dicom-web/studies/{shared.other}/metadata", headers=holder)).status_code == 404
    assert (await shared.client.get("/api/v1/users/me", headers=holder)).status_code == 403
    await shared.client.delete(f"/api/v1/projects/{shared.project}/share-links/{link['id']}", headers=shared.maker)
    await shared.open(link["token"])
    await shared.application.app.state.audit_queue.drain()
    await shared.application.app.state.audit_chain.append_all()
    async with shared.application.services.db.read(SYSTEM) as tx:
        rows = await tx.fetch("select action, outcome, actor_kind, key_id::text, patient from audit order by seq")
    by_link = [(row["action"], row["outcome"]) for row in rows if row["key_id"] == link["id"]]
    assert {row["actor_kind"] for row in rows if row["key_id"] == link["id"]} == {"share_link"}
    for expected in (
        ("share_link.refused", "success"),
        ("share_link.used", "success"),
        ("study.searched", "success"),
        ("study.read", "not-found"),
        ("own", "denied"),
    ):
        assert expected in by_link, f"{expected} is not in {by_link}"
    by_maker = {row["action"]: row for row in rows if row["actor_kind"] == "user"}
    assert {"share_link.created", "share_link.revoked", "study.shared"} <= by_maker.keys()
    assert by_maker["study.shared"]["patient"], "whose study it was"
    assert "share_link.created" in await event_types(shared.application)


@pytest.mark.parametrize("seed", range(3))
async def test_a_link_shows_what_its_maker_sees_of_what_it_names(application: Application, seed: int) -> None:
    """Random archives, rules and links: the first wall alone, and the second one alone, show just that."""
    chance = random.Random(seed)  # noqa: S311 - reproducible on purpose
    services, client = application.services, application.client
    maker, headers = await application.add_user("maker"), await application.headers("maker")
    made = invent(chance, 5)
    project = (await client.post("/api/v1/projects", json={"name": "p"}, headers=headers)).json()["id"]
    await store(services, maker, made, project)
    named: dict[str, list[str]] = {}
    for one in chance.sample(made, 5):
        named[one["StudyInstanceUID"]] = chance.choice([[], [one["SeriesInstanceUID"]]])
    link = await make_share_link(application, headers, project, named)
    opened = await open_share_link(application, link["token"])
    holder = await application.app.state.authenticator.from_credential(opened["access_token"])
    for effect, level in ((None, None), ("ALLOW", "INSTANCE"), ("LIMIT", "SERIES"), ("DENY", "STUDY")):
        if effect is not None:
            attribute = {"INSTANCE": "SOPClassUID", "SERIES": "Modality", "STUDY": "PatientSex"}[str(level)]
            body = {"effect": effect, "level": level, "attribute": attribute, "operator": "NE"}
            body["value"] = chance.choice(made)[attribute] or "X"
            answer = await client.post(f"/api/v1/projects/{project}/rules", json=body, headers=headers)
            assert answer.status_code == 201, answer.text
        async with services.db.read(maker) as tx:
            by_maker = {row[0] for row in await tx.fetch("select sop_instance_uid from instances")}
        expected = [
            one
            for one in made
            if one["SOPInstanceUID"] in by_maker
            and one["StudyInstanceUID"] in named
            and (not named[one["StudyInstanceUID"]] or one["SeriesInstanceUID"] in named[one["StudyInstanceUID"]])
        ]
        sees = {
            name: {one[keyword] for one in expected}
            for name, keyword in (
                ("studies", "StudyInstanceUID"),
                ("series", "SeriesInstanceUID"),
                ("instances", "SOPInstanceUID"),
            )
        }
        for door, keyword in (("studies", "0020000D"), ("series", "0020000E"), ("instances", "00080018")):
            answer = await client.get(
                f"/dicom-web/{door}", headers={"Authorization": f"Bearer {opened['access_token']}"}
            )
            assert {row[keyword]["Value"][0] for row in answer.json()} == sees[door]
        await _walls(services.db.url, services.db, holder, sees)


async def _walls(url: str, db: Any, holder: Actor, sees: dict[str, set[str]]) -> None:
    uids = {"studies": "study_instance_uid", "series": "series_instance_uid", "instances": "sop_instance_uid"}
    async with db.read(holder) as tx:
        for table, uid in uids.items():
            assert {row[0] for row in await tx.fetch(f"select {uid} from {table}")} == sees[table]
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("begin")
        for table in uids:
            await connection.execute(f"alter table {table} disable row level security")
        await connection.execute(
            f"set local app.actor = '{holder.user_id}'; set local app.share = '{holder.share_link_id}'"
        )
        predicates = {
            "studies": visible_studies("o.id"),
            "series": visible_series("o"),
            "instances": visible_instances("o"),
        }
        for table, predicate in predicates.items():
            rows = await connection.fetch(f"select {uids[table]} from {table} o where {predicate}")
            assert {row[0] for row in rows} == sees[table]
        order = (("st.study_at", "desc"), ("st.id", "desc"), ("se.id", "asc"), ("i.id", "asc"))
        columns = ("st.study_instance_uid", "se.series_instance_uid", "i.sop_instance_uid")
        for depth, table in enumerate(uids):
            for way in (visible_page, visible_walk):
                page = way(depth, f"{columns[depth]} as uid", [], order[: depth + 2], limit=500, offset=0)
                assert {row["uid"] for row in await connection.fetch(page)} == sees[table]
        await connection.execute("rollback")
    finally:
        await connection.close()


async def _list(shared: Shared, headers: dict[str, str]) -> dict[str, Any]:
    answer = await shared.client.get(f"/api/v1/projects/{shared.project}/share-links", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def _second_administrator(shared: Shared) -> None:
    second = await shared.application.add_user("second")
    answer = await shared.client.post(
        f"/api/v1/projects/{shared.project}/members",
        json={"user_id": str(second.user_id), "role": "project_admin"},
        headers=shared.maker,
    )
    assert answer.status_code == 201, answer.text


async def _rerole(shared: Shared, permissions: list[str]) -> None:
    """The maker keeps these permissions alone; somebody else manages the project."""
    await _second_administrator(shared)
    url = f"/api/v1/projects/{shared.project}"
    for path, body in (
        ("roles", {"name": "narrow", "permissions": permissions}),
        ("members", {"user_id": shared.maker_id, "role": "narrow"}),
    ):
        answer = await shared.client.post(f"{url}/{path}", json=body, headers=shared.maker)
        assert answer.is_success, answer.text
