"""Many annotations in one call: a result for each, all or none where that is wanted."""

from typing import Any

from tests.annotations.conftest import ANNOTATIONS, Team

BATCH = f"{ANNOTATIONS}/batch"


async def send(team: Team, path: str, who: str = "annotator", **body: Any) -> Any:
    return await team.client.post(f"{BATCH}{path}", json=body, headers=team.people[who])


async def total(team: Team) -> int:
    return (await team.get("", "viewer", limit=1)).json()["total"]


async def test_good_items_are_written_beside_bad_ones(team: Team) -> None:
    bad = team.body(geometry={"type": "length", "space": "pixel", "points": [[1, 1]]})
    foreign = team.body(project_id="01900000-0000-7000-8000-000000000000")
    answer = await send(team, "", items=[team.body(), bad, team.body(label="cyst"), foreign])
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert [result["status"] for result in body["results"]] == [201, 422, 201, 404]
    assert (body["succeeded"], body["failed"]) == (2, 2)
    assert body["results"][1]["problem"]["type"].endswith(":invalid-geometry")
    assert await total(team) == 2


async def test_an_atomic_batch_is_written_whole_or_not_at_all(team: Team) -> None:
    bad = team.body(frame_number=9)
    answer = await send(team, "", items=[team.body(), bad], atomic=True)
    assert answer.status_code == 422
    assert answer.json()["type"].endswith(":batch-refused")
    assert answer.json()["results"][1]["problem"]["type"].endswith(":outside-frame")
    assert await total(team) == 0
    made = [await team.create() for _ in range(2)]
    await team.patch(made[1], {"label": "changed meanwhile"}, "other")
    items = [{"id": one["id"], "version": 1, "patch": {"description": "all"}} for one in made]
    refused = await send(team, "/edit", items=items, atomic=True)
    assert refused.status_code == 422
    assert refused.json()["results"][1]["problem"]["current_version"] == 2
    assert (await team.get(f"/{made[0]['id']}")).json()["version"] == 1


async def test_edits_reviews_and_deletions_come_in_batches(team: Team) -> None:
    ids = [result["id"] for result in (await send(team, "", items=[team.body()] * 5)).json()["results"]]
    edits = [
        {"id": one, "version": 1, "patch": {"description": f"{n}", "why": "all at once"}} for n, one in enumerate(ids)
    ]
    assert (await send(team, "/edit", items=edits)).json()["succeeded"] == 5
    items = [{"id": one, "version": 2} for one in ids]
    assert (await send(team, "/step", step="submit", items=items)).json()["succeeded"] == 5
    stale = (await send(team, "/step", "reviewer", step="approve", items=items)).json()
    assert [result["status"] for result in stale["results"]] == [412] * 5
    fresh = [{"id": one, "version": 3} for one in ids[:3]]
    assert (await send(team, "/step", "reviewer", step="approve", items=fresh)).json()["succeeded"] == 3
    gone = (await send(team, "/delete", items=[{"id": one, "version": 3} for one in reversed(ids)])).json()
    assert [result["status"] for result in gone["results"]] == [204, 204, 412, 412, 412]
    assert await total(team) == 3
    history = (await team.get(f"/{ids[4]}/versions")).json()["items"]
    assert [entry["action"] for entry in history] == ["delete", "submit", "edit", "create"]


async def test_a_repeated_batch_is_done_once(team: Team) -> None:
    headers = team.people["annotator"] | {"Idempotency-Key": "b"}
    answers = [await team.client.post(BATCH, json={"items": [team.body()] * 3}, headers=headers) for _ in range(2)]
    assert answers[0].json() == answers[1].json()
    assert await total(team) == 3


async def test_a_thousand_at_once(team: Team) -> None:
    answer = await send(team, "", items=[team.body()] * 1000)
    assert answer.json()["succeeded"] == 1000
    summaries = (await team.get("", "viewer", view="summary", limit=5000)).json()
    assert len({item["id"] for item in summaries["items"]}) == summaries["total"] == 1000


async def test_reviewers_assign_many_at_once_to_who_can_open_them(team: Team) -> None:
    mine = [(await team.create("annotator"))["id"] for _ in range(3)]
    others = (await team.create("other"))["id"]
    people = {
        one["username"]: one["user_id"]
        for one in (await team.client.get(f"/api/v1/projects/{team.project_id}/members", headers=team.people["owner"])).json()["items"]
    }  # fmt: skip
    items = [{"id": one, "version": 1} for one in [*mine, others]]
    refused = await send(team, "/assign", items=items, assignee=people["annotator"])
    assert [result["status"] for result in refused.json()["results"]] == [403] * 4
    answer = await send(team, "/assign", "reviewer", items=items, assignee=people["annotator"], why="second look")
    assert answer.json()["succeeded"] == 4, answer.text
    listed = (await team.get("", "viewer", assigned_to="annotator", view="summary")).json()
    assert {item["id"] for item in listed["items"]} == {*mine, others}
    entry = (await team.get(f"/{mine[0]}/versions", "viewer")).json()["items"][0]
    assert (entry["action"], entry["changed"], entry["why"]) == ("assign", ["assigned_to"], "second look")
    unassigned = await send(team, "/assign", "reviewer", items=[{"id": mine[0], "version": 2}], assignee=None)
    assert unassigned.json()["succeeded"] == 1
    assert (await team.get(f"/{mine[0]}", "viewer")).json()["assigned_to"] is None
    nobody = await send(team, "/assign", "reviewer", atomic=True, assignee="01900000-0000-7000-8000-000000000000",
                        items=[{"id": one, "version": 2} for one in mine[1:]])  # fmt: skip
    assert nobody.status_code == 422
    assert [r["problem"]["type"].rsplit(":", 1)[-1] for r in nobody.json()["results"]] == ["invalid-annotation"] * 2
    edited = await team.patch({"id": mine[1], "version": 2}, {"description": "seen"})
    assert edited.json()["assigned_to"] == people["annotator"], "an edit leaves the assignment"
