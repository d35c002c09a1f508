"""Label sets, what they ask of submitted work, and drafts that only their author sees."""

from typing import Any

from tests.annotations.conftest import ANNOTATIONS, Team

LABELS = "/api/v1/labels"
NODULE = {
    "value": "27925004", "scheme": "SCT", "meaning": "Nodule", "name_en": "Nodule", "name_ko": "결절", "color": "#12ab34",
    "required": ["description"],
    "attributes": [
        {"name": "certainty", "type": "choice", "choices": ["low", "high"], "required": True},
        {"name": "diameter", "type": "number"},
    ],
}  # fmt: skip


async def add(team: Team, who: str = "owner", **changes: Any) -> Any:
    return await team.client.post(
        LABELS, json={"project_id": team.project_id} | NODULE | changes, headers=team.people[who]
    )


async def test_with_a_label_set_annotations_take_their_label_from_it(team: Team) -> None:
    assert (await add(team, "annotator")).status_code == 403
    made = await add(team)
    assert made.status_code == 201, made.text
    assert (await add(team)).status_code == 409
    code = {"value": "27925004", "scheme": "SCT", "meaning": "Nodule"}
    for label in ("nodule", "결절", code | {"meaning": "spelled otherwise"}):
        assert (await team.create(label=label))["label"] == code
    refused = await team.client.post(ANNOTATIONS, json=team.body(label="cyst"), headers=team.people["annotator"])
    assert refused.status_code == 422
    assert refused.json()["type"].endswith(":label-not-in-set")
    wrong = team.body(label="nodule", attributes={"certainty": "so-so"})
    assert (await team.client.post(ANNOTATIONS, json=wrong, headers=team.people["annotator"])).status_code == 422


async def test_submitted_work_has_what_its_label_asks_for(team: Team) -> None:
    await add(team)
    made = await team.create(label="nodule")
    refused = await team.step(made, "submit", "annotator")
    assert refused.status_code == 422
    assert refused.json()["missing"] == ["description", "attributes.certainty"]
    filled = (await team.patch(made, {"description": "round", "attributes": {"certainty": "low"}})).json()
    assert (await team.step(filled, "submit", "annotator")).status_code == 200
    bare = await team.create()
    assert (await team.step(bare, "submit", "annotator")).json()["missing"] == ["label"]


async def test_labels_are_edited_by_version_and_retired(team: Team) -> None:
    label = (await add(team)).json()
    old = await team.create(label="nodule")
    path, owner = f"{LABELS}/{label['id']}", team.people["owner"]
    assert (await team.client.patch(path, json={"color": "#000000"}, headers=owner)).status_code == 428
    edited = await team.client.patch(
        path, json={"color": "#000000", "retired": True}, headers=owner | {"If-Match": '"1"'}
    )
    assert edited.status_code == 200, edited.text
    assert (edited.json()["retired"], edited.json()["name_ko"]) == (True, "결절")
    assert (await team.client.patch(path, json={}, headers=owner | {"If-Match": '"1"'})).status_code == 412
    query = {"project_id": team.project_id}
    assert (await team.client.get(LABELS, params=query, headers=owner)).json()["items"] == []
    retired = await team.client.get(LABELS, params=query | {"retired": "true"}, headers=owner)
    assert len(retired.json()["items"]) == 1
    assert (await team.patch(old, {"description": "still mine"})).json()["label"]["value"] == "27925004"
    for path_of in (LABELS, path):
        assert (await team.client.get(path_of, params=query, headers=team.people["stranger"])).status_code == 404


async def test_a_project_may_let_reviewers_review_their_own(team: Team) -> None:
    path = f"/api/v1/projects/{team.project_id}/annotation-settings"
    assert (await team.client.get(path, headers=team.people["viewer"])).json() == {"review_own": False}
    assert (await team.client.put(path, json={"review_own": True}, headers=team.people["reviewer"])).status_code == 403
    assert (await team.client.put(path, json={"review_own": True}, headers=team.people["owner"])).status_code == 200
    made = (await team.step(await team.create("reviewer"), "submit", "reviewer")).json()
    assert (await team.step(made, "approve", "reviewer")).status_code == 200


async def test_a_draft_is_kept_for_its_author_alone(team: Team) -> None:
    path, query = f"{ANNOTATIONS}/drafts/unfinished polygon", {"study_instance_uid": team.study}
    mine, other = team.people["annotator"], team.people["other"]
    for points in ([[1, 2]], [[1, 2], [3, 4]]):
        saved = await team.client.put(path, json={"points": points}, params=query, headers=mine)
        assert saved.status_code == 200, saved.text
    found = (await team.client.get(path, params=query, headers=mine)).json()
    assert found["content"] == {"points": [[1, 2], [3, 4]]}
    assert (await team.client.get(path, params=query, headers=other)).status_code == 404
    assert (await team.client.get(path, params={"study_instance_uid": "1.2"}, headers=mine)).status_code == 404
    assert (await team.client.get(f"{ANNOTATIONS}/drafts", headers=other)).json()["items"] == []
    [entry] = (await team.client.get(f"{ANNOTATIONS}/drafts", params=query, headers=mine)).json()["items"]
    assert entry["key"] == "unfinished polygon"
    large = await team.client.put(path, content=b'"' + b"x" * (1 << 20) + b'"', params=query, headers=mine)
    assert (large.status_code, large.json()["limit_bytes"]) == (413, 1 << 20)
    assert (await team.client.put(path, content=b"{not json", params=query, headers=mine)).status_code == 400
    await team.client.delete(path, params=query, headers=other)
    assert (await team.client.get(path, params=query, headers=mine)).status_code == 200
    assert (await team.client.delete(path, params=query, headers=mine)).status_code == 204
    assert (await team.client.get(path, params=query, headers=mine)).status_code == 404
