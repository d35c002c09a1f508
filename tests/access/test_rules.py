"""The truth table of rules, cell by cell; time; and what a rule may say."""

from datetime import timedelta
from typing import Any

import pytest

from annotomy.actor import SYSTEM
from annotomy.projects.visibility import settle_due
from tests.access.archives import invent_one, store
from tests.support.application import Application

# ALLOW, LIMIT, DENY: - no such rule, n one that does not match, y one that matches, u one on what cannot be read -> seen?
TRUTH = """
--- yes | --n no  | --y no  | -n- no  | -nn no  | -ny no  | -y- no  | -yn no  | -yy no
n-- no  | n-n no  | n-y no  | nn- no  | nnn no  | nny no  | ny- no  | nyn no  | nyy no
y-- yes | y-n yes | y-y no  | yn- no  | ynn no  | yny no  | yy- yes | yyn yes | yyy no
--u no  | -nu no  | -yu no  | -u- no  | -un no  | -uy no  | -uu no  | n-u no  | nnu no  | nyu no
nu- no  | nun no  | nuy no  | nuu no  | y-u no  | ynu no  | yyu no  | yu- no  | yun no  | yuy no
yuu no  | u-- no  | u-n no  | u-y no  | u-u no  | un- no  | unn no  | uny no  | unu no  | uy- no
uyn no  | uyy no  | uyu no  | uu- no  | uun no  | uuy no  | uuu no
"""
CELLS = {cell.split()[0]: cell.split()[1] == "yes" for cell in TRUTH.strip().replace("\n", "|").split("|")}


async def _project(
    application: Application, *, reader_role: str = "viewer"
) -> tuple[str, dict[str, str], dict[str, str], str]:
    """A project that holds one CT series of one instance: its address, its administrator, a reader, the reader's id."""
    admin, reader = await application.headers("owner"), await application.headers("reader")
    async with application.services.db.read(SYSTEM) as tx:
        owner_id = await tx.fetchval("select id from users where username = 'owner'")
    from annotomy.actor import Actor

    made = await application.client.post("/api/v1/projects", json={"name": "p"}, headers=admin)
    url = f"/api/v1/projects/{made.json()['id']}"
    await store(
        application.services,
        Actor(owner_id, "owner"),
        [invent_one(Modality="CT", StudyDate="20240101", StationName="?letters")],
        made.json()["id"],
    )
    reader_id = (await application.client.get("/api/v1/users/me", headers=reader)).json()["id"]
    body = {"user_id": reader_id, "role": reader_role}
    assert (await application.client.post(f"{url}/members", json=body, headers=admin)).status_code == 201
    return url, admin, reader, reader_id


async def _sees(application: Application, headers: dict[str, str]) -> bool:
    return bool((await application.client.get("/dicom-web/instances", headers=headers)).json())


def _rule(effect: str, **fields: Any) -> dict[str, Any]:
    return {"effect": effect, "level": "SERIES", "attribute": "Modality", "operator": "EQ", "value": "CT", **fields}


@pytest.mark.parametrize(("level", "operator"), [("STUDY", "EQ"), ("SERIES", "NE"), ("INSTANCE", "PRESENT")])
async def test_every_cell_of_the_truth_table(application: Application, level: str, operator: str) -> None:
    assert len(CELLS) == 64
    url, admin, reader, _ = await _project(application)
    for cell, seen in CELLS.items():
        made: list[str] = []
        for effect, state in zip(("ALLOW", "LIMIT", "DENY"), cell, strict=True):
            if state != "-":
                body = _rule(effect, level=level, value="CT" if state == "y" else "MR")
                if state == "u":
                    body |= {"attribute": "StationName", "operator": operator, "value": True}
                    body |= {} if operator == "PRESENT" else {"value": "CT01"}
                answer = await application.client.post(f"{url}/rules", json=body, headers=admin)
                assert answer.status_code == 201, answer.text
                made.append(answer.json()["id"])
        assert await _sees(application, reader) == seen, cell
        for rule_id in made:
            assert (await application.client.delete(f"{url}/rules/{rule_id}", headers=admin)).status_code == 204
    assert await _sees(application, reader)


async def test_a_rule_for_a_role_or_a_person_holds_for_them_alone(application: Application) -> None:
    url, admin, reader, reader_id = await _project(application)
    client = application.client
    await client.post(f"{url}/rules", json=_rule("ALLOW"), headers=admin)
    denied = (await client.post(f"{url}/rules", json=_rule("DENY", role="annotator"), headers=admin)).json()["id"]
    assert await _sees(application, reader)
    await client.post(f"{url}/members", json={"user_id": reader_id, "role": "annotator"}, headers=admin)
    assert not await _sees(application, reader)
    await client.delete(f"{url}/rules/{denied}", headers=admin)
    assert await _sees(application, reader)
    await client.post(f"{url}/rules", json=_rule("DENY", user_id=reader_id), headers=admin)
    assert not await _sees(application, reader)
    assert await _sees(application, admin)


async def test_a_change_needs_the_version_it_starts_from_and_holds_at_once(application: Application) -> None:
    url, admin, reader, _ = await _project(application)
    client = application.client
    made = await client.post(f"{url}/rules", json=_rule("ALLOW", value="MR"), headers=admin)
    assert not await _sees(application, reader)
    rule = f"{url}/rules/{made.json()['id']}"
    assert (await client.patch(rule, json={"value": "CT"}, headers=admin)).status_code == 428
    changed = await client.patch(rule, json={"value": "CT"}, headers=admin | {"If-Match": made.headers["etag"]})
    assert (changed.status_code, changed.json()["value"], changed.json()["version"]) == (200, "CT", 2)
    assert await _sees(application, reader)
    stale = await client.patch(rule, json={"value": "MR"}, headers=admin | {"If-Match": made.headers["etag"]})
    assert (stale.status_code, stale.json()["current_version"]) == (412, 2)


async def test_what_arrives_later_is_under_the_same_rules(application: Application) -> None:
    url, admin, reader, _ = await _project(application)
    client = application.client
    await client.post(f"{url}/rules", json=_rule("ALLOW"), headers=admin)
    before = (await client.get("/dicom-web/instances", headers=reader)).json()
    async with application.services.db.read(SYSTEM) as tx:
        row = await tx.fetchrow("select u.id from users u where u.username = 'owner'")
    from annotomy.actor import Actor

    assert row is not None
    study = before[0]["0020000D"]["Value"][0]
    more = [invent_one(Modality=modality, StudyInstanceUID=study) for modality in ("CT", "MR")]
    await store(application.services, Actor(row["id"], "owner"), more, url.rsplit("/", 1)[1])
    after = (await client.get("/dicom-web/series", headers=reader)).json()
    assert [one["00080060"]["Value"] for one in after] == [["CT"], ["CT"]]


async def test_a_rule_that_ends_or_begins_shows_nothing_until_it_is_settled(application: Application) -> None:
    url, admin, reader, _ = await _project(application)
    client, now = application.client, application.services.clock.now()
    body = _rule("ALLOW", expires_at=(now + timedelta(hours=1)).isoformat())
    await client.post(f"{url}/rules", json=body, headers=admin)
    later = _rule("ALLOW", valid_from=(now + timedelta(hours=2)).isoformat())
    await client.post(f"{url}/rules", json=later, headers=admin)
    assert await _sees(application, reader)
    for column, seen in (("expires_at", False), ("valid_from", True)):
        async with application.services.db.write(SYSTEM) as tx:  # the moment comes
            await tx.execute(
                f"update project_rules set {column} = now() - interval '1 second' where {column} is not null"
            )
            for table in ("audiences", "project_members"):
                await tx.execute(f"update {table} set good_until = now() where good_until is not null")
        assert not await _sees(application, reader), "closed until decided anew"
        async with application.services.db.write(SYSTEM) as tx:
            await settle_due(tx)
        assert await _sees(application, reader) == seen


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"attribute": "PixelData"}, "Rules may name"),
        ({"attribute": "Modality'; drop table studies; --"}, "Rules may name"),
        ({"attribute": "StudyDate", "value": "yesterday"}, "a date YYYYMMDD"),
        ({"attribute": "PatientAge", "value": "old"}, "an age"),
        ({"operator": "PRESENT", "value": "yes"}, "true or false"),
        ({"operator": "IN", "value": []}, "a list"),
        ({"operator": "RANGE", "attribute": "StudyDate", "value": ["20250101", "20240101"]}, "the smaller first"),
        ({"operator": "RANGE", "attribute": "StudyDate", "value": ["", ""]}, "may be empty"),
        ({"value": ""}, "a text"),
        ({"value": {"a": 1}}, "a text"),
        ({"role": "king"}, "no role"),
        ({"user_id": "00000000-0000-0000-0000-000000000001"}, "no such user"),
        ({"expires_at": "2026-01-01T00:00:00"}, "UTC"),
    ],
)  # fmt: skip
async def test_a_rule_that_says_nothing_sensible_is_refused(
    application: Application, fields: dict[str, Any], says: str
) -> None:
    owner = await application.headers("owner")
    made = await application.client.post("/api/v1/projects", json={"name": "p"}, headers=owner)
    url = f"/api/v1/projects/{made.json()['id']}/rules"
    answer = await application.client.post(url, json=_rule("ALLOW", **fields), headers=owner)
    assert answer.status_code == 400
    assert says in answer.json()["detail"]
    assert (await application.client.get(url, headers=owner)).json()["items"] == []


async def test_preview_and_explanation_say_what_a_person_sees_and_why(application: Application) -> None:
    url, admin, reader, reader_id = await _project(application)
    client = application.client
    await client.post(f"{url}/rules", json=_rule("ALLOW"), headers=admin)
    denied = (await client.post(f"{url}/rules", json=_rule("DENY", role="viewer"), headers=admin)).json()["id"]
    preview = (await client.get(f"{url}/rules/preview", params={"user_id": reader_id}, headers=admin)).json()
    assert (preview["studies"], preview["items"]) == (0, [])
    study = (await client.get("/dicom-web/studies", headers=admin)).json()[0]["0020000D"]["Value"][0]
    told = await client.get(f"/api/v1/studies/{study}/access", params={"user_id": reader_id}, headers=admin)
    [line] = told.json()["items"]
    assert (line["sees"], line["why"], line["denied_by"]) == ("nothing", "rules", [denied])
    assert len(line["allowed_by"]) == 1
    await client.delete(f"{url}/rules/{denied}", headers=admin)
    preview = (await client.get(f"{url}/rules/preview", params={"user_id": reader_id}, headers=admin)).json()
    assert (preview["studies"], preview["series"], preview["instances"]) == (1, 1, 1)
    assert preview["items"][0]["study_instance_uid"] == study
    stranger = await application.headers("stranger")
    for headers in (reader, stranger):
        assert (await client.get(f"/api/v1/studies/{study}/access", headers=headers)).status_code == 404
    assert (await client.get(f"{url}/rules/preview", params={"user_id": reader_id}, headers=reader)).status_code == 403


async def test_rules_are_tried_on_a_member_before_they_are_saved(application: Application) -> None:
    url, admin, reader, reader_id = await _project(application)
    client = application.client

    async def tried(*rules: dict[str, Any]) -> int:
        body = {"user_id": reader_id, "rules": list(rules)}
        answer = await client.post(f"{url}/rules/preview", json=body, headers=admin)
        assert answer.status_code == 200, answer.text
        return answer.json()["studies"]

    assert await tried() == 1
    assert await tried(_rule("ALLOW", value="MR")) == 0
    assert await tried(_rule("ALLOW"), _rule("DENY", role="annotator")) == 1
    assert await tried(_rule("ALLOW"), _rule("DENY", user_id=reader_id)) == 0
    assert await _sees(application, reader)
    assert (await client.get(f"{url}/rules", headers=admin)).json()["total"] == 0, "nothing was stored"
    wrong = {"user_id": reader_id, "rules": [_rule("ALLOW", attribute="NoSuch")]}
    assert (await client.post(f"{url}/rules/preview", json=wrong, headers=admin)).status_code == 400
    right = {"user_id": reader_id, "rules": []}
    assert (await client.post(f"{url}/rules/preview", json=right, headers=reader)).status_code == 403


async def test_the_attributes_that_rules_take_are_listed_with_their_kind(application: Application) -> None:
    listed = (
        await application.client.get("/api/v1/rule-attributes", headers=await application.headers("reader"))
    ).json()
    assert {"name": "StudyDate", "level": "STUDY", "kind": "date"} in listed["items"]
    assert listed["total"] == len(listed["items"]) > 20
