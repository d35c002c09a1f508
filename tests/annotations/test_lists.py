"""Lists of annotations: what one may read, filtered, counted and paged."""

from typing import Any

import pytest

from tests.annotations.conftest import ANNOTATIONS, Team

REGION = {"type": "polygon", "space": "pixel", "points": [[1, 1], [9, 1], [9, 9]]}


async def listed(team: Team, who: str = "viewer", **query: Any) -> list[str]:
    answer = await team.get("", who, **query)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["total"] == len(body["items"]), "all on one page here"
    return [item["id"] for item in body["items"]]


async def test_filters_combine(team: Team) -> None:
    a = (await team.create(label="nodule", description="왼쪽 폐의 결절"))["id"]
    b = (await team.create("other", label="cyst", kind="region", geometry=REGION, sop_instance_uid=team.sops[1]))["id"]
    c = await team.create("other", label={"value": "27925004", "scheme": "SCT", "meaning": "Nodule"}, series_instance_uid=None,
                          sop_instance_uid=None, frame_number=None, geometry={"type": "none"}, kind="label")  # fmt: skip
    await team.step(c, "submit", "other")
    c = c["id"]
    elsewhere = (await team.create(study_instance_uid="1.2.3", series_instance_uid=None, sop_instance_uid="1.2.4"))[
        "id"
    ]
    study = {"project_id": team.project_id, "study_instance_uid": team.study}
    assert await listed(team) == [elsewhere, c, b, a]
    assert await listed(team, **study) == [c, b, a]
    assert await listed(team, series_instance_uid=team.series) == [b, a]
    assert await listed(team, sop_instance_uid=team.sops[1]) == [b]
    assert await listed(team, author="other", **study) == [c, b]
    assert await listed(team, author="other", geometry_type="polygon", **study) == [b]
    assert await listed(team, label="nodule") == [a]
    assert await listed(team, label="27925004") == [c]
    assert await listed(team, state="submitted") == [c]
    assert await listed(team, state=["draft", "submitted"], kind="label") == [c]
    assert await listed(team, text="결절") == [a]
    assert await listed(team, text="NODULE") == [c, a]
    assert await listed(team, text="%") == []
    assert await listed(team, kind="region", label="nodule") == []
    assert await listed(team, created_before="2026-01-01T00:00:00Z") == []
    assert await listed(team, updated_from="2026-01-01T00:00:00Z", **study) == [c, b, a]


async def test_what_models_and_tools_made_is_found(team: Team) -> None:
    drawn = (await team.create(tool="OHIF 3.13.0", description="by hand"))["id"]
    made = await team.create(model="nodules 1.2", tool="nodules 1.2")
    assert (made["tool"], made["model"]) == ("nodules 1.2", "nodules 1.2")
    assert await listed(team, tool="ohif") == [drawn]
    assert await listed(team, tool="ohif 3.12") == []
    assert await listed(team, model="nodules 1.2", author="annotator", created_from="2026-01-01T00:00:00Z") == [
        made["id"]
    ]
    assert await listed(team, model="nodules 1.2", text="hand") == []
    edit = await team.patch(made, {"model": ""})
    assert edit.status_code == 422, "where an annotation comes from is no matter of opinion"


async def test_deleted_annotations_are_listed_where_they_are_asked_for(team: Team) -> None:
    kept, gone = await team.create(), await team.create()
    await team.client.delete(f"{ANNOTATIONS}/{gone['id']}", headers=team.people["annotator"] | {"If-Match": '"1"'})
    assert await listed(team) == [kept["id"]]
    assert await listed(team, deleted=True) == [gone["id"]]


async def test_pages_follow_each_other_without_gap_or_repeat(team: Team) -> None:
    made = [(await team.create(description=str(n)))["id"] for n in range(7)][::-1]
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 3}
    while True:
        page = (await team.get("", "viewer", **query)).json()
        assert page["total"] == 7
        seen += [item["id"] for item in page["items"]]
        if page["next"] is None:
            break
        query["cursor"] = page["next"]
        if len(seen) == 3:
            await team.create(description="meanwhile")  # newer: on no later page
            made_total = 8
            assert (await team.get("", "viewer", limit=1)).json()["total"] == made_total
            page_two = (await team.get("", "viewer", **query)).json()
            assert page_two["total"] == made_total
            assert [item["id"] for item in page_two["items"]] == made[3:6]
            break
    assert seen == made[:3]
    assert (await team.get("", "viewer", cursor="bm9uc2Vuc2U")).status_code == 400


async def test_totals_count_only_what_one_may_read(team: Team) -> None:
    await team.create()
    mine = (await team.client.post("/api/v1/projects", json={"name": "own"}, headers=team.people["stranger"])).json()
    body = team.body(
        project_id=mine["id"], study_instance_uid="1.2.9", series_instance_uid=None, sop_instance_uid="1.2.10"
    )
    own = (await team.client.post(ANNOTATIONS, json=body, headers=team.people["stranger"])).json()
    assert await listed(team, "stranger") == [own["id"]]
    assert await listed(team, "stranger", study_instance_uid=team.study) == []
    hidden = await team.get("", "stranger", project_id=team.project_id)
    absent = await team.get("", "stranger", project_id="01900000-0000-7000-8000-000000000000")
    assert hidden.status_code == absent.status_code == 404
    # A study that leaves the project takes its annotations out of sight; they come back with it.
    studies = f"/api/v1/projects/{team.project_id}/studies"
    await team.client.delete(f"{studies}/{team.study}", headers=team.people["owner"])
    assert await listed(team, "viewer") == []


async def test_summaries_leave_the_geometry_out(team: Team) -> None:
    made = await team.create(label="nodule")
    [item] = (await team.get("", "viewer", view="summary")).json()["items"]
    assert item == {name: made[name] for name in item if name != "geometry_type"} | {"geometry_type": "length"}
    assert "geometry" not in item
    assert (await team.get("", "viewer", view="summary", limit=5000)).status_code == 200
    assert (await team.get("", "viewer", limit=5000)).status_code == 400


@pytest.mark.parametrize(
    "query", [{"limit": 0}, {"state": "lost"}, {"created_from": "2026-01-01T00:00:00"}, {"deleted": "x"}]
)
async def test_a_filter_that_makes_no_sense_is_refused(team: Team, query: dict[str, Any]) -> None:
    assert (await team.get("", "viewer", **query)).status_code == 400
