"""An annotation's life through HTTP: created, read, edited, deleted, restored, reviewed."""

import asyncio
from typing import Any

import pytest

from tests.annotations.conftest import ANNOTATIONS, Team, sign_up, store
from tests.support.dicom_files import ct_series


async def test_an_annotation_is_created_measured_and_read_back(team: Team) -> None:
    made = await team.create(
        label="nodule", description="왼쪽 폐", measurements=[{"name": "depth", "value": 3, "unit": "mm"}]
    )
    assert made["version"] == 1
    assert made["state"] == "draft"
    assert made["author"] == "annotator"
    assert made["study_stored"] is True
    assert [(m["name"], m["value"], m["unit"], m.get("source", "client")) for m in made["measurements"]] == [
        ("length", 22.5, "mm", "server"),
        ("depth", 3, "mm", "client"),
    ]
    # The frame's first pixel has its centre at (-10, -20, 2.5) and pixels of 0.75 mm.
    assert made["mapped_geometry"]["space"] == "lps_mm"
    assert made["mapped_geometry"]["points"][0] == pytest.approx([-10 + 9.5 * 0.75, -20 + 19.5 * 0.75, 2.5])
    answer = await team.get(f"/{made['id']}", "viewer")
    assert answer.status_code == 200
    assert answer.headers["etag"] == '"1"'
    assert answer.json() == made


async def test_images_may_live_elsewhere(team: Team) -> None:
    made = await team.create(study_instance_uid="1.2.3", series_instance_uid=None, sop_instance_uid="1.2.3.4")
    assert made["study_stored"] is False
    assert made["measurements"][0]["unit"] == "{pixels}"
    study_label = await team.create(
        study_instance_uid="1.2.3", series_instance_uid=None, sop_instance_uid=None, frame_number=None,
        kind="label", geometry={"type": "none"}, label={"value": "56265001", "scheme": "SCT", "meaning": "Heart disease"},
    )  # fmt: skip
    assert study_label["label"]["value"] == "56265001"


async def test_an_edit_makes_the_next_version_and_names_the_one_it_starts_from(team: Team) -> None:
    made = await team.create()
    path = f"{ANNOTATIONS}/{made['id']}"
    assert (await team.client.patch(path, json={}, headers=team.people["annotator"])).status_code == 428
    edited = await team.patch(made, {"description": "seen again", "why": "second look"}, "other")
    assert edited.status_code == 200, edited.text
    assert edited.headers["etag"] == '"2"'
    assert edited.json()["description"] == "seen again"
    assert edited.json()["measurements"] == made["measurements"]
    history = (await team.get(f"/{made['id']}/versions", "reviewer")).json()["items"]
    assert [(v["version"], v["action"], v["author"], v["why"], v["changed"]) for v in history] == [
        (2, "edit", "other", "second look", ["description"]),
        (1, "create", "annotator", "", ["kind", "geometry"]),
    ]
    second = (await team.get(f"/{made['id']}/versions/2")).json()
    assert second["changes"] == [{"member": "description", "before": "", "after": "seen again"}]


async def test_a_lost_race_shows_both_sides_and_offers_a_merge(team: Team) -> None:
    made = await team.create(attributes={"certainty": "low"})
    assert (await team.patch(made, {"label": "cyst"}, "other")).status_code == 200
    lost = await team.patch(made, {"description": "round", "attributes": {"certainty": "high"}})
    assert lost.status_code == 412
    problem = lost.json()
    assert problem["type"].endswith(":edit-conflict")
    assert (problem["current_version"], problem["base_version"], problem["changed_by"]) == (2, 1, "other")
    assert problem["current"]["label"] == "cyst"
    assert problem["base"]["description"] == ""
    assert problem["mergeable"] is True
    assert problem["merged"] == {"description": "round", "attributes": {"certainty": "high"}}
    merged = await team.patch(made, problem["merged"], version=2)
    assert merged.status_code == 200
    assert (merged.json()["label"], merged.json()["description"]) == ("cyst", "round")
    crossed = (await team.patch(made, {"label": "nodule", "kind": "region"}, "other")).json()
    assert (crossed["mergeable"], crossed["conflicts"]) == (False, ["label"])
    assert "merged" not in crossed


async def test_of_fifty_edits_from_one_version_one_wins(team: Team) -> None:
    made = await team.create()
    answers = await asyncio.gather(*(team.patch(made, {"description": f"writer {n}"}) for n in range(50)))
    won = [n for n, answer in enumerate(answers) if answer.status_code == 200]
    assert len(won) == 1
    assert {answer.status_code for answer in answers} == {200, 412}
    standing = (await team.get(f"/{made['id']}")).json()
    assert (standing["version"], standing["description"]) == (2, f"writer {won[0]}")


async def test_deletion_is_a_version_and_is_undone(team: Team) -> None:
    made = await team.create(description="kept")
    path, headers = f"{ANNOTATIONS}/{made['id']}", team.people["annotator"]
    assert (await team.client.delete(path, headers=headers)).status_code == 428
    gone = await team.client.request("DELETE", path, headers=headers | {"If-Match": '"1"'}, json={"why": "by mistake"})
    assert gone.status_code == 204
    absent = await team.get(f"/{made['id']}")
    assert absent.status_code == 404
    assert absent.json()["type"].endswith(":annotation-deleted")
    assert (await team.patch(made, {"description": "x"}, version=2)).status_code == 404
    assert (await team.get(f"/{made['id']}/versions")).json()["items"][0]["action"] == "delete"
    back = await team.client.post(f"{path}/restore", json={"version": 1, "why": "needed"}, headers=headers)
    assert back.status_code == 200, back.text
    assert (back.json()["version"], back.json()["description"], back.json()["deleted_at"]) == (3, "kept", None)
    assert back.json()["measurements"] == made["measurements"]
    assert [v["version"] for v in (await team.get(f"/{made['id']}/versions")).json()["items"]] == [3, 2, 1]


async def test_restoring_names_a_version_that_exists(team: Team) -> None:
    made = await team.create()
    answer = await team.client.post(
        f"{ANNOTATIONS}/{made['id']}/restore", json={"version": 9}, headers=team.people["annotator"]
    )
    assert answer.status_code == 404


async def test_who_is_no_member_learns_nothing(team: Team) -> None:
    made = await team.create()
    unknown = "01900000-0000-7000-8000-000000000000"
    request_id = {"X-Request-ID": "same"}
    headers = team.people["stranger"] | request_id
    for method, suffix, body in (
        ("GET", "", None), ("GET", "/versions", None), ("GET", "/versions/1", None), ("PATCH", "", {"description": "x"}),
        ("DELETE", "", None), ("POST", "/restore", {"version": 1}), ("POST", "/submit", None), ("POST", "/approve", None),
    ):  # fmt: skip
        hidden, absent = [
            await team.client.request(
                method, f"{ANNOTATIONS}/{one}{suffix}", json=body, headers=headers | {"If-Match": '"1"'}
            )
            for one in (made["id"], unknown)
        ]
        assert hidden.status_code == 404, (method, suffix)
        assert hidden.content == absent.content, (method, suffix)


async def test_a_viewer_reads_and_changes_nothing(team: Team) -> None:
    made = await team.create()
    viewer = team.people["viewer"] | {"If-Match": '"1"'}
    path = f"{ANNOTATIONS}/{made['id']}"
    assert (await team.client.post(ANNOTATIONS, json=team.body(), headers=viewer)).status_code == 403
    assert (await team.client.patch(path, json={"label": "x"}, headers=viewer)).status_code == 403
    assert (await team.client.delete(path, headers=viewer)).status_code == 403
    assert (await team.client.post(f"{path}/restore", json={"version": 1}, headers=viewer)).status_code == 403
    assert (await team.client.post(f"{path}/submit", headers=viewer)).status_code == 403


async def test_annotators_change_their_own_and_reviewers_everybodys(team: Team) -> None:
    made = await team.create("other")
    assert (await team.get(f"/{made['id']}", "annotator")).status_code == 200
    assert (await team.patch(made, {"label": "x"}, "annotator")).status_code == 403
    headers = team.people["annotator"] | {"If-Match": '"1"'}
    assert (await team.client.delete(f"{ANNOTATIONS}/{made['id']}", headers=headers)).status_code == 403
    assert (await team.patch(made, {"label": "x"}, "reviewer")).status_code == 200


async def test_a_blinded_reader_knows_of_nothing_but_their_own(team: Team) -> None:
    user_id, team.people["blinded"] = await sign_up(team.application, "blinded")
    member = {"user_id": user_id, "role": "blinded_reader"}
    path = f"/api/v1/projects/{team.project_id}/members"
    assert (await team.client.post(path, json=member, headers=team.people["owner"])).status_code == 201
    others, own = await team.create(), await team.create("blinded")
    for suffix in ("", "/versions", "/versions/1"):
        assert (await team.get(f"/{others['id']}{suffix}", "blinded")).status_code == 404
    assert (await team.patch(others, {"label": "x"}, "blinded")).status_code == 404
    page = (await team.get("", "blinded", project_id=team.project_id, study_instance_uid=team.study)).json()
    assert ([item["id"] for item in page["items"]], page["total"]) == ([own["id"]], 1)
    exported = await team.get("/export", "blinded", project_id=team.project_id, format="json")
    assert [one["id"] for one in exported.json()["annotations"]] == [own["id"]]


async def test_a_study_that_is_hidden_is_annotated_like_one_that_lives_elsewhere(team: Team) -> None:
    mine = (await team.client.post("/api/v1/projects", json={"name": "own"}, headers=team.people["stranger"])).json()
    answers: list[tuple[int, dict[str, Any], int]] = []
    for study in (team.study, "1.2.3.4.5"):
        body = team.body(project_id=mine["id"], study_instance_uid=study)
        made = await team.client.post(ANNOTATIONS, json=body, headers=team.people["stranger"])
        read = await team.get(f"/{made.json()['id']}", "stranger")
        told = {name: value for name, value in made.json().items() if not name.endswith(("id", "uid", "_at"))}
        answers.append((made.status_code, told, read.status_code))
    assert answers[0] == answers[1]
    assert answers[0][0] == 201


async def test_what_was_drawn_before_its_study_came_follows_the_study_of_its_own_project(team: Team) -> None:
    async def drawn(person: str, project: str) -> str:
        early = team.body(
            project_id=project, study_instance_uid="1.2.5", series_instance_uid=None, sop_instance_uid="1.2.5.1"
        )
        return (await team.client.post(ANNOTATIONS, json=early, headers=team.people[person])).json()["id"]

    mine = (await team.client.post("/api/v1/projects", json={"name": "own"}, headers=team.people["stranger"])).json()
    elsewhere, here = await drawn("stranger", mine["id"]), await drawn("annotator", team.project_id)
    await store(team.application, team.people["owner"], team.project_id, ct_series(1, study_instance_uid="1.2.5"))
    assert (await team.get(f"/{elsewhere}", "stranger")).status_code == 200, "what others store is nothing to it"
    assert (await team.get(f"/{here}", "annotator")).status_code == 200
    study = f"/api/v1/projects/{team.project_id}/studies/1.2.5"
    assert (await team.client.delete(study, headers=team.people["owner"])).status_code == 204
    assert (await team.get(f"/{here}", "annotator")).status_code == 404, "hidden with its study"
    assert (await team.get(f"/{elsewhere}", "stranger")).status_code == 200


async def test_review_goes_by_state_and_by_rights(team: Team) -> None:
    made = await team.create()
    assert (await team.step(made, "approve", "reviewer")).status_code == 409
    submitted = (await team.step(made, "submit", "annotator")).json()
    assert (submitted["state"], submitted["version"]) == ("submitted", 2)
    assert (await team.step(submitted, "approve", "annotator")).status_code == 403
    stale = await team.step(made, "approve", "reviewer")
    assert stale.status_code == 412  # a version that the reviewer has not looked at
    rejected = (await team.step(submitted, "reject", "reviewer", why="too short")).json()
    assert rejected["state"] == "rejected"
    redone = (await team.patch(rejected, {"description": "longer"})).json()
    assert redone["state"] == "draft"
    again = (await team.step(redone, "submit", "annotator")).json()
    approved = (await team.step(again, "approve", "reviewer")).json()
    assert approved["state"] == "approved"
    assert (await team.patch(approved, {"description": "sneaky"})).status_code == 409
    assert (await team.step(approved, "reopen", "annotator")).status_code == 403
    assert (await team.step(approved, "reopen", "reviewer")).json()["state"] == "draft"
    refused = await team.patch(made, {"state": "approved"}, version=7)
    assert refused.status_code == 422


async def test_nobody_reviews_their_own_work(team: Team) -> None:
    made = await team.create("reviewer")
    submitted = (await team.step(made, "submit", "reviewer")).json()
    refused = await team.step(submitted, "approve", "reviewer")
    assert refused.status_code == 409
    assert refused.json()["type"].endswith(":own-review")


@pytest.mark.parametrize(
    ("changes", "slug"),
    [
        ({"geometry": {"type": "length", "space": "pixel", "points": [[1, 2]]}}, "invalid-geometry"),
        ({"geometry": {"type": "length", "space": "pixel", "points": [[1, 2], [3, 65]]}}, "outside-frame"),
        (
            {"geometry": {"type": "length", "space": "lps_mm", "points": [[-9, -19, 2.5], [-8, -19, 5]]}},
            "outside-frame",
        ),
        ({"geometry": {"type": "box3d", "space": "pixel", "points": [[1, 2], [3, 4]]}}, "invalid-geometry"),
        ({"geometry": {"type": "length", "points": [[1, 2], [3, 4]]}}, "invalid-geometry"),
        ({"frame_number": 2}, "outside-frame"),
        ({"study_instance_uid": "1.2.840.5"}, "invalid-annotation"),
        ({"series_instance_uid": "1.2.840.5"}, "invalid-annotation"),
        ({"kind": "key_image"}, "invalid-annotation"),
        ({"sop_instance_uid": None}, "invalid-annotation"),
        ({"description": "nul \0"}, "invalid-annotation"),
        ({"attributes": {"a.b": 1}}, "invalid-annotation"),
    ],
)
async def test_what_is_not_valid_is_refused_with_its_field(team: Team, changes: dict[str, Any], slug: str) -> None:
    answer = await team.client.post(ANNOTATIONS, json=team.body(**changes), headers=team.people["annotator"])
    assert answer.status_code == 422, answer.text
    assert answer.json()["type"] == f"urn:annotomy:problem:{slug}"
    assert answer.json()["field"]


async def test_members_that_nobody_knows_are_refused_not_ignored(team: Team) -> None:
    answer = await team.client.post(ANNOTATIONS, json=team.body(colour="red"), headers=team.people["annotator"])
    assert answer.status_code == 400


async def test_a_repeated_create_answers_as_the_first(team: Team) -> None:
    headers = team.people["annotator"] | {"Idempotency-Key": "k1"}
    first, again = [await team.client.post(ANNOTATIONS, json=team.body(), headers=headers) for _ in range(2)]
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.content == first.content
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["etag"] == first.headers["etag"] == '"1"'
    other = await team.client.post(ANNOTATIONS, json=team.body(description="other"), headers=headers)
    assert other.status_code == 422
    assert other.json()["type"].endswith(":idempotency-key-reused")
    anew = await team.client.post(
        ANNOTATIONS, json=team.body(), headers=team.people["other"] | {"Idempotency-Key": "k1"}
    )
    assert anew.json()["id"] != first.json()["id"]


async def test_a_repeated_edit_is_done_once(team: Team) -> None:
    made = await team.create()
    headers = team.people["annotator"] | {"Idempotency-Key": "edit", "If-Match": '"1"'}
    path = f"{ANNOTATIONS}/{made['id']}"
    answers = [await team.client.patch(path, json={"label": "cyst"}, headers=headers) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert {answer.json()["version"] for answer in answers} == {2}


async def test_parallel_requests_with_one_key_create_once(team: Team) -> None:
    headers = team.people["annotator"] | {"Idempotency-Key": "rush"}
    answers = await asyncio.gather(
        *(team.client.post(ANNOTATIONS, json=team.body(), headers=headers) for _ in range(12))
    )
    assert {answer.status_code for answer in answers} <= {201, 409}
    assert len({answer.json()["id"] for answer in answers if answer.status_code == 201}) == 1


PATIENT = {"series_instance_uid": None, "sop_instance_uid": None, "frame_number": None}
EVERY_KIND: list[dict[str, Any]] = [
    {"geometry": {"type": kind, "space": "pixel", "points": points}}
    for kind, points in {
        "point": [[3, 4]], "probe": [[3, 4]], "length": [[3, 4], [9, 9]], "arrow": [[3, 4], [9, 9]],
        "bidirectional": [[3, 4], [20, 4], [9, 1], [9, 9]], "angle": [[3, 4], [9, 9], [20, 9]],
        "cobb_angle": [[3, 4], [20, 6], [3, 30], [20, 20]], "rectangle": [[3, 4], [20, 30]], "ellipse": [[3, 4], [20, 30]],
        "polygon": [[3, 4], [20, 6], [9, 30]], "freehand": [[3, 4], [20, 6], [9, 30]], "spline": [[3, 4], [20, 6], [9, 30]],
    }.items()
] + [
    {"geometry": {"type": "point", "space": "lps_mm", "points": [[1, 2, 3]]}} | PATIENT,
    {"geometry": {"type": "line3d", "space": "lps_mm", "points": [[1, 2, 3], [4, 5, 6]]}} | PATIENT,
    {"geometry": {"type": "box3d", "space": "lps_mm", "points": [[1, 2, 3], [4, 5, 6]]}} | PATIENT,
    {"kind": "key_image", "geometry": {"type": "none"}},
    {"kind": "label", "geometry": {"type": "none"}, "label": "motion"},
    {"kind": "label", "geometry": {"type": "none"}, "label": "follow up"} | PATIENT,
]  # fmt: skip


async def test_every_kind_is_kept_listed_edited_and_restored(team: Team) -> None:
    """With its text, as an arrow has one."""
    for changes in EVERY_KIND:
        made = await team.create(description="a text", **changes)
        assert made["kind"] == changes.get("kind", "measurement")
        assert made["geometry"]["type"] == changes["geometry"]["type"]
        points = changes["geometry"].get("points", [])
        assert made["geometry"].get("points", []) == points
        edited = await team.patch(made, {"description": "another"})
        assert edited.status_code == 200, edited.text
        preview = (await team.get(f"/{made['id']}/versions/1", against=2)).json()
        assert [(c["member"], c["before"], c["after"]) for c in preview["changes"]] == [
            ("description", "another", "a text")
        ]
        path = f"{ANNOTATIONS}/{made['id']}/restore"
        restored = await team.client.post(path, json={"version": 1}, headers=team.people["annotator"])
        assert restored.json() | {"version": 1, "updated_at": made["updated_at"]} == made
    listed = (await team.get("", "viewer", limit=100)).json()
    assert listed["total"] == len(EVERY_KIND)
