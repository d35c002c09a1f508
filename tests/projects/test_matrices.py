"""Bulk administration: what the matrices say is what is, and a write is all or nothing, audited, and never gives more than one has."""

from typing import Any
from uuid import UUID

import pytest

from annotomy.actor import Actor
from annotomy.projects.roles import PERMISSIONS
from tests.access.archives import invent_one, store
from tests.support.application import Application


class World:
    """A project of `owner` with three studies (the first has two series), and members `reader`, `writer`, `blind`."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.client = application.client
        self.headers: dict[str, dict[str, str]] = {}
        self.ids: dict[str, str] = {}
        self.studies: list[dict[str, str]] = []
        self.project = ""
        self.url = ""

    async def person(self, name: str) -> str:
        self.headers[name] = await self.application.headers(name)
        self.ids[name] = (await self.client.get("/api/v1/users/me", headers=self.headers[name])).json()["id"]
        return self.ids[name]

    async def make(self) -> None:
        owner = await self.person("owner")
        self.project = (await self.post("/projects", {"name": "p"})).json()["id"]
        self.url = f"/projects/{self.project}"
        self.studies = [invent_one(StudyDate=f"2024010{n}", Modality="CT") for n in (3, 2, 1)]
        second = self.studies[0] | invent_one(
            StudyInstanceUID=self.studies[0]["StudyInstanceUID"], StudyDate="20240103", Modality="MR"
        )
        self.second_series = second["SeriesInstanceUID"]
        await store(self.application.services, Actor(UUID(owner), "owner"), [*self.studies, second], self.project)
        for name, role in (("reader", "viewer"), ("writer", "annotator"), ("blind", "blinded_reader")):
            body = {"user_id": await self.person(name), "role": role}
            assert (await self.post(f"{self.url}/members", body)).status_code == 201

    async def post(self, path: str, body: Any, by: str = "owner") -> Any:
        return await self.client.post(f"/api/v1{path}", json=body, headers=self.headers[by])

    async def get(self, path: str, by: str = "owner", **params: Any) -> Any:
        return await self.client.get(f"/api/v1{path}", params=params, headers=self.headers[by])

    async def patch(self, path: str, body: Any, by: str = "owner") -> Any:
        return await self.client.patch(f"/api/v1{path}", json={"reason": "because"} | body, headers=self.headers[by])

    async def seen(self, name: str) -> set[str]:
        found = (await self.client.get("/dicom-web/series", headers=self.headers[name])).json()
        return {one["0020000E"]["Value"][0] for one in found}

    async def cells(self, level: str = "study", by: str = "owner") -> dict[tuple[str, str], tuple[str, str, Any]]:
        answer = await self.get(f"{self.url}/matrices/data", by, level=level)
        assert answer.status_code == 200, answer.text
        body = answer.json()
        return {
            (row[f"{level}_instance_uid"], column["username"]): (cell["access"], cell["reason"], cell["rule"])
            for row, line in zip(body["rows"]["items"], body["cells"], strict=True)
            for column, cell in zip(body["columns"]["items"], line, strict=True)
        }

    async def audit(self, **asked: Any) -> list[dict[str, Any]]:
        admin = await self.application.headers("admin")
        params = {"limit": 1000, **asked}
        return (await self.client.get("/api/v1/audit", params=params, headers=admin)).json()["items"]

    def uid(self, number: int) -> str:
        return self.studies[number]["StudyInstanceUID"]


@pytest.fixture
async def world(application: Application) -> World:
    made = World(application)
    await made.make()
    return made


# -- roles x permissions ----------------------------------------------------------------------------------------------


async def test_own_roles_are_written_by_the_cell_and_built_in_ones_only_read(world: World) -> None:
    await world.post(f"{world.url}/roles", {"name": "checker", "permissions": ["study.read"]})
    await world.patch("/matrices/members", {"changes": [_membership(world, "reader", "checker")]})
    before = (await world.get(f"{world.url}/matrices/roles", row_limit=1, column_limit=2)).json()
    assert [(row["name"], row["editable"], row["members"]) for row in before["rows"]["items"]] == [("checker", True, 1)]
    assert before["cells"] == [[True, False]]
    assert (before["rows"]["total"], before["columns"]["total"]) == (
        9,
        len([one for one in PERMISSIONS.values() if one.scope == "project"]),
    )
    following = (
        await world.get(
            f"{world.url}/matrices/roles",
            row_limit=1,
            row_cursor=before["rows"]["next"],
            column_limit=2,
            column_cursor=before["columns"]["next"],
        )
    ).json()
    assert [row["name"] for row in following["rows"]["items"]] == ["viewer"]
    assert [column["name"] for column in following["columns"]["items"]] == ["study.assign", "study.share"]
    changes = [
        {"role": "checker", "permission": "study.read", "granted": False},
        {"role": "checker", "permission": "model.run", "granted": True},
        {"role": "checker", "permission": "review", "granted": False},
    ]
    answer = await world.patch(f"{world.url}/matrices/roles", {"changes": changes})
    assert [one["outcome"] for one in answer.json()["results"]] == ["changed", "changed", "unchanged"]
    assert await world.seen("reader") == set()
    granted = await world.audit(action="role.permission_granted")
    assert [(one["object"]["id"], one["reason"]) for one in granted] == [("checker", "because")]
    changes = [
        {"role": "checker", "permission": "study.read", "granted": True},
        {"role": "viewer", "permission": "review", "granted": True},
        {"role": "nobody", "permission": "review", "granted": True},
        {"role": "checker", "permission": "user.manage", "granted": True},
    ]
    refused = await world.patch(f"{world.url}/matrices/roles", {"changes": changes})
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:annotomy:problem:matrix-refused")
    assert [one["outcome"] for one in refused.json()["results"]] == ["changed", "refused", "refused", "refused"]
    assert await world.seen("reader") == set(), "one refusal keeps all"


async def test_nobody_gives_by_any_route_what_they_do_not_hold(world: World) -> None:
    await world.post(f"{world.url}/roles", {"name": "clerk", "permissions": ["project.manage", "study.read"]})
    await world.post(f"{world.url}/roles", {"name": "other", "permissions": ["study.read"]})
    await world.post(f"{world.url}/members", {"user_id": world.ids["reader"], "role": "clerk"})
    change = {"role": "other", "permission": "study.export", "granted": True}
    by_matrix = await world.patch(f"{world.url}/matrices/roles", {"changes": [change]}, "reader")
    assert by_matrix.json()["results"][0]["problem"]["lacking"] == ["study.export"]
    by_matrix = await world.patch(
        "/matrices/members", {"changes": [_membership(world, "reader", "project_admin")]}, "reader"
    )
    assert by_matrix.json()["results"][0]["problem"]["status"] == 403
    for path, body in (
        ("members", {"user_id": world.ids["writer"], "role": "data_manager"}),
        ("roles", {"name": "other", "permissions": ["study.read", "study.delete"]}),
    ):
        assert (await world.post(f"{world.url}/{path}", body, "reader")).status_code == 403
    kept = await world.post(f"{world.url}/roles", {"name": "other", "permissions": ["study.read"]}, "reader")
    assert kept.status_code == 201
    change = {"role": "other", "permission": "project.manage", "granted": True}
    assert (await world.patch(f"{world.url}/matrices/roles", {"changes": [change]}, "reader")).status_code == 200


async def test_a_project_keeps_somebody_to_manage_it(world: World) -> None:
    await world.post(f"{world.url}/roles", {"name": "boss", "permissions": ["project.manage", "study.read"]})
    await world.post(f"{world.url}/members", {"user_id": world.ids["owner"], "role": "boss"})
    taken = [{"role": "boss", "permission": "project.manage", "granted": False}]
    by_role = await world.patch(f"{world.url}/matrices/roles", {"changes": taken})
    changes = [_membership(world, "reader", None), _membership(world, "owner", None)]
    by_member = await world.patch("/matrices/members", {"changes": changes})
    for answer in (by_role, by_member):
        assert answer.status_code == 409
        assert answer.json()["results"][-1]["problem"]["type"] == "urn:annotomy:problem:last-administrator"
    assert await world.seen("reader"), "nothing was written"


# -- users x projects -------------------------------------------------------------------------------------------------


def _membership(world: World, name: str, role: str | None) -> dict[str, Any]:
    return {"user_id": world.ids[name], "project_id": world.project, "role": role}


async def test_the_members_of_all_projects_that_one_manages_are_read_and_written_at_once(world: World) -> None:
    await world.person("admin")
    other = (await world.post("/projects", {"name": "q"})).json()["id"]
    group = (await world.post("/groups", {"name": "g"}, "admin")).json()["id"]
    await world.post(f"/groups/{group}/members", {"user_id": world.ids["reader"]}, "admin")
    await world.post(f"/projects/{other}/groups", {"group_id": group, "role": "reviewer"})
    changes = [
        _membership(world, "writer", "reviewer"),
        _membership(world, "blind", None),
        _membership(world, "reader", "viewer"),
        {"user_id": world.ids["writer"], "project_id": other, "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"},
    ]
    answer = await world.patch("/matrices/members", {"changes": changes})
    assert [one["outcome"] for one in answer.json()["results"]] == ["changed", "changed", "unchanged", "changed"]
    assert await world.seen("blind") == set()
    matrix = (await world.get("/matrices/members", column_limit=2)).json()
    assert [one["name"] for one in matrix["columns"]["items"]] == ["p", "q"]
    assert [one["username"] for one in matrix["rows"]["items"]] == ["owner", "reader", "writer"]
    roles = [[cell and (cell["role"], cell["source"], cell["valid"]) for cell in line] for line in matrix["cells"]]
    assert roles == [
        [("project_admin", "member", True), ("project_admin", "member", True)],
        [("viewer", "member", True), ("reviewer", "group", True)],
        [("reviewer", "member", True), ("viewer", "member", False)],
    ]
    first = (await world.get("/matrices/members", row_limit=1, column_limit=1)).json()
    rest = (await world.get("/matrices/members", row_cursor=first["rows"]["next"], q="WRIT")).json()
    assert [one["username"] for one in rest["rows"]["items"]] == ["writer"]
    records = await world.audit(action="member.set")
    assert [one["reason"] for one in records][-2:] == ["because", "because"]
    through_group = {"user_id": world.ids["reader"], "project_id": other, "role": None}
    assert (await world.patch("/matrices/members", {"changes": [through_group]})).status_code == 409


async def test_who_manages_nothing_sees_and_changes_nothing(world: World) -> None:
    matrix = (await world.get("/matrices/members", "reader")).json()
    assert world.project not in str(matrix)
    answer = await world.patch("/matrices/members", {"changes": [_membership(world, "reader", "viewer")]}, "reader")
    assert answer.json()["results"][0]["problem"]["status"] == 403
    await world.person("stranger")
    answer = await world.patch("/matrices/members", {"changes": [_membership(world, "reader", "viewer")]}, "stranger")
    assert answer.json()["results"][0]["problem"]["status"] == 404
    for path in ("roles", "data"):
        assert (await world.get(f"{world.url}/matrices/{path}", "reader")).status_code == 403
        assert (await world.get(f"{world.url}/matrices/{path}", "stranger")).status_code == 404


# -- data x users -----------------------------------------------------------------------------------------------------


async def test_the_matrix_says_what_each_member_sees_and_why(world: World) -> None:
    cells = await world.cells()
    assert len(cells) == 12
    assert {cells[world.uid(n), "owner"] for n in range(3)} == {("full", "assigned", None)}
    assert cells[world.uid(0), "reader"] == ("read_only", "read-only-role", None)
    assert cells[world.uid(0), "writer"] == ("full", "assigned", None)
    assert cells[world.uid(0), "blind"] == ("limited", "own-work-only", None)
    for rule in (
        {"effect": "ALLOW", "level": "STUDY", "attribute": "PatientID", "operator": "PRESENT", "value": True},
        {"effect": "DENY", "level": "SERIES", "attribute": "Modality", "operator": "EQ", "value": "MR", "role": "viewer"},
        {"effect": "DENY", "level": "STUDY", "attribute": "StudyDate", "operator": "EQ", "value": "20240102", "role": "viewer"},
        {"effect": "LIMIT", "level": "STUDY", "attribute": "StudyDate", "operator": "EQ", "value": "20240103", "role": "annotator"},
    ):  # fmt: skip
        assert (await world.post(f"{world.url}/rules", rule)).status_code == 201
    cells = await world.cells()
    assert cells[world.uid(0), "reader"] == ("limited", "part-by-rules", None)
    assert cells[world.uid(1), "reader"] == ("none", "denied-by-rule", None)
    assert cells[world.uid(2), "reader"] == ("read_only", "read-only-role", None)
    assert cells[world.uid(0), "writer"] == ("full", "rules", None)
    assert cells[world.uid(1), "writer"] == ("none", "outside-limits", None)
    by_series = await world.cells("series")
    assert by_series[world.second_series, "reader"] == ("none", "denied-by-rule", None)
    assert by_series[world.studies[0]["SeriesInstanceUID"], "reader"] == ("read_only", "read-only-role", None)
    assert {uid for (uid, name), cell in by_series.items() if name == "reader" and cell[0] != "none"} == (
        await world.seen("reader")
    )
    await world.post(f"{world.url}/members", {"user_id": world.ids["writer"], "role": "auditor"})
    assert (await world.cells())[world.uid(0), "writer"] == ("none", "role-without-study-read", None)
    await world.post(
        f"{world.url}/members",
        {"user_id": world.ids["writer"], "role": "viewer", "expires_at": "2020-01-01T00:00:00Z"},
    )
    assert (await world.cells())[world.uid(0), "writer"] == ("none", "membership-not-valid", None)


async def test_both_axes_are_paged_to_their_ends(world: World) -> None:
    for level, rows in (("study", 3), ("series", 4)):
        key = f"{level}_instance_uid"
        seen: list[tuple[str, str]] = []
        row_cursor: str | None = None
        for _ in range(rows):
            column_cursor: str | None = None
            for _ in range(4):
                cursors = {"row_cursor": row_cursor, "column_cursor": column_cursor}
                asked = {name: value for name, value in cursors.items() if value}
                answer = await world.get(
                    f"{world.url}/matrices/data", level=level, row_limit=1, column_limit=1, **asked
                )
                page = answer.json()
                assert len(page["cells"]) == len(page["cells"][0]) == 1
                seen.append((page["rows"]["items"][0][key], page["columns"]["items"][0]["username"]))
                column_cursor = page["columns"]["next"]
            assert column_cursor is None
            row_cursor = page["rows"]["next"]  # pyright: ignore[reportPossiblyUnboundVariable]
        assert row_cursor is None
        assert set(seen) == set(await world.cells(level))
        assert len(seen) == rows * 4


async def test_access_is_withdrawn_limited_and_granted_by_the_cell(world: World) -> None:
    def cell(name: str, number: int, rule: str | None, **more: Any) -> dict[str, Any]:
        return {"user_id": world.ids[name], "study_instance_uid": world.uid(number), "rule": rule, **more}

    url = f"{world.url}/matrices/data"
    series = {"series_instance_uid": world.second_series}
    changes = [
        cell("reader", 1, "DENY"), cell("reader", 0, "DENY", **series),
        cell("writer", 0, "LIMIT"), cell("writer", 1, "LIMIT"), cell("blind", 0, None),
    ]  # fmt: skip
    answer = await world.patch(url, {"changes": changes})
    assert answer.status_code == 200, answer.text
    assert [one["outcome"] for one in answer.json()["results"]] == ["changed"] * 4 + ["unchanged"]
    first = {world.studies[0]["SeriesInstanceUID"], world.second_series}
    second, third = ({world.studies[n]["SeriesInstanceUID"]} for n in (1, 2))
    assert await world.seen("reader") == (first - {world.second_series}) | third
    assert await world.seen("writer") == first | second
    assert await world.seen("blind") == await world.seen("owner") == first | second | third
    cells = await world.cells()
    assert cells[world.uid(1), "reader"] == ("none", "denied-by-rule", "DENY")
    assert cells[world.uid(1), "writer"] == ("full", "rules", "LIMIT")
    assert cells[world.uid(2), "writer"] == ("none", "outside-limits", None)
    rules = (await world.get(f"{world.url}/rules")).json()["items"]
    assert sorted((rule["effect"], rule["operator"]) for rule in rules) == [
        ("ALLOW", "PRESENT"), ("DENY", "IN"), ("DENY", "IN"), ("LIMIT", "IN"),
    ]  # fmt: skip
    back = [cell("reader", 1, None), cell("reader", 0, None, **series), cell("writer", 1, None)]
    assert (await world.patch(url, {"changes": back})).status_code == 200
    assert await world.seen("reader") == first | second | third
    assert await world.seen("writer") == first
    records = await world.audit(action="access.changed")
    assert [one["reason"] for one in records] == ["because"] * 7
    assert all(one["patient"] for one in records)
    twice = await world.patch(url, {"changes": [cell("reader", 1, "DENY"), cell("reader", 1, "ALLOW")]})
    assert twice.status_code == 409
    assert await world.seen("reader") == first | second | third


async def test_nobody_shows_others_more_than_they_see_themselves(world: World) -> None:
    await world.post(f"{world.url}/members", {"user_id": world.ids["writer"], "role": "project_admin"})
    denied = [
        {"user_id": world.ids["writer"], "study_instance_uid": world.uid(0), "series_instance_uid": world.second_series, "rule": "DENY"},
        {"user_id": world.ids["writer"], "study_instance_uid": world.uid(1), "rule": "DENY"},
    ]  # fmt: skip
    url = f"{world.url}/matrices/data"
    assert (await world.patch(url, {"changes": denied})).status_code == 200
    assert world.uid(1) not in {uid for uid, _ in await world.cells(by="writer")}, "rows are what one sees oneself"
    given = [
        {"user_id": world.ids["reader"], "study_instance_uid": world.uid(0), "rule": "ALLOW"},
        {"user_id": world.ids["writer"], "study_instance_uid": world.uid(1), "rule": None},
        {"user_id": world.ids["reader"], "study_instance_uid": world.uid(0), "rule": "DENY"},
    ]
    for change, status in zip(given, (403, 404, None), strict=True):
        answer = await world.patch(url, {"changes": [change]}, "writer")
        if status is None:
            assert answer.status_code == 200, "to take away needs no sight of the whole"
        else:
            assert answer.json()["results"][0]["problem"]["status"] == status


async def test_studies_are_assigned_and_taken_out_in_the_same_write(world: World) -> None:
    other = (await world.post("/projects", {"name": "q"})).json()["id"]
    assignments = [
        {"study_instance_uid": world.uid(0), "series_instance_uid": world.second_series, "assigned": True},
        {"study_instance_uid": world.uid(1), "assigned": True},
    ]
    url = f"/projects/{other}/matrices/data"
    owners = {"user_id": world.ids["owner"], "study_instance_uid": world.uid(1), "rule": "ALLOW"}
    answer = await world.patch(url, {"assignments": assignments, "changes": [owners]})
    assert answer.status_code == 200, answer.text
    again = await world.patch(url, {"assignments": assignments})
    assert [one["outcome"] for one in again.json()["assignment_results"]] == ["unchanged", "unchanged"]
    out = [{"study_instance_uid": world.uid(1), "assigned": False}, {"study_instance_uid": "1.2.3", "assigned": True}]
    refused = await world.patch(url, {"assignments": out})
    assert [one["outcome"] for one in refused.json()["assignment_results"]] == ["changed", "refused"]
    held = (await world.get(f"/projects/{other}/studies")).json()
    assert held["total"] == 2, "one refusal keeps all"
    assert (await world.patch(url, {"assignments": out[:1]})).status_code == 200
    assert (await world.get(f"/projects/{other}/studies")).json()["total"] == 1
    records = await world.audit(action="study.unassigned")
    assert [one["reason"] for one in records] == ["because"]
