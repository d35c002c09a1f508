"""A UID that somebody else keeps is answered as one that nobody keeps (docs/decisions/0010), whatever way an instance comes in."""

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any
from uuid import UUID

import pytest

from annotomy.actor import SYSTEM, Actor
from annotomy.archive.store import Incoming, StoreOutcome, store_instances
from annotomy.db.engine import Database
from tests.access.archives import headers_only, invent_one, store
from tests.access.world import same
from tests.support.application import Application
from tests.support.jobs import run_queued_jobs

Headers = dict[str, str]
UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
BOUNDARY = "holdings"


@dataclass(frozen=True)
class Sender:
    headers: Headers
    project: str


async def _project(application: Application, headers: Headers, name: str) -> str:
    answer = await application.client.post("/api/v1/projects", json={"name": name}, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


async def _actor(application: Application, headers: Headers) -> Actor:
    me = (await application.client.get("/api/v1/users/me", headers=headers)).json()
    return Actor(UUID(me["id"]), me["username"])


async def _stow(application: Application, by: Sender, file: dict[str, str]) -> Any:
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return await application.client.post(
        f"/dicom-web/studies?project_id={by.project}",
        content=head + headers_only(file) + f"\r\n--{BOUNDARY}--".encode(),
        headers=by.headers | {"Content-Type": f"multipart/related; type=application/dicom; boundary={BOUNDARY}"},
    )


async def _upload(application: Application, by: Sender, file: dict[str, str]) -> list[Any]:
    data = headers_only(file)
    told = {"filename": "one.dcm", "project_id": by.project}
    metadata = ",".join(f"{name} {base64.b64encode(value.encode()).decode()}" for name, value in told.items())
    made = await application.client.post(
        "/api/v1/uploads/",
        content=data,
        headers=by.headers
        | {
            "Tus-Resumable": "1.0.0",
            "Upload-Length": str(len(data)),
            "Upload-Metadata": metadata,
            "Content-Type": "application/offset+octet-stream",
        },
    )
    assert made.status_code == 201, made.text
    await run_queued_jobs(application.services)
    url = made.headers["location"]
    return [await application.client.get(f"{url}{more}", headers=by.headers) for more in ("", "/files")]


async def _looks(application: Application, by: Sender, file: dict[str, str]) -> list[Any]:
    """What somebody may look at of a study."""
    study, series, sop = (file[name] for name in UIDS)
    base = f"/dicom-web/studies/{study}"
    paths = [
        f"/dicom-web/studies?StudyInstanceUID={study}",
        f"/dicom-web/studies?StudyInstanceUID={study}&ModalitiesInStudy=CT",
        f"/dicom-web/studies?StudyInstanceUID={study}&includefield=00080080",
        "/dicom-web/studies",
        "/dicom-web/series",
        "/dicom-web/instances",
        f"{base}/series",
        f"{base}/instances",
        f"{base}/series/{series}/instances",
        f"{base}/metadata",
        f"{base}/series/{series}/instances/{sop}/metadata",
        f"/api/v1/projects/{by.project}/studies",
        f"/api/v1/predictions?series_instance_uid={series}",
        f"/api/v1/annotations?study_instance_uid={study}",
        f"/api/v1/segmentations?study_instance_uid={study}",
    ]
    return [await application.client.get(path, headers=by.headers) for path in paths]


async def _told(application: Application, by: Sender, file: dict[str, str], way: str) -> list[Any]:
    """Sends twice, and looks at what is there then. What somebody said themselves is no part of what they are told."""
    answers: list[Any] = []
    for _ in range(2):
        answers += [await _stow(application, by, file)] if way == "STOW" else await _upload(application, by, file)
    answers += await _looks(application, by, file)
    ids = {f"{name} sent": file[name] for name in UIDS} | {"project_id": by.project}
    return [(re.sub(r"[\d.]{20,}|[0-9a-f-]{36}", "", str(one.request.url)), *_plain(same(one, ids))) for one in answers]


def _differences(one: list[Any], other: list[Any]) -> list[Any]:
    return [pair for pair in zip(one, other, strict=True) if pair[0] != pair[1]]


def _plain(told: Any) -> Any:
    """Without what is made anew by each upload and what the asker's name for others' UIDs is. UIDs are not all of one length,
    and so neither are the files that they are sent in.
    """
    status, text, headers = told
    headers = {name: value for name, value in headers.items() if name not in ("date", "etag")}
    text = re.sub(r'"(size|length|offset|[a-z_]*bytes|bytes_per_second)":[^,}]*', "", text)
    return status, text, headers


@pytest.fixture
async def kept(application: Application) -> dict[str, Any]:
    """A study of the owner's, and a sender in a project of their own with a twin who sends what nobody keeps."""
    owner = await application.headers("owner")
    project = await _project(application, owner, "trial")
    hidden = invent_one(PatientID="HIDDEN", PatientName="Hidden^One", Modality="MR", SeriesDescription="hidden")
    await store(application.services, await _actor(application, owner), [hidden], project)
    senders = dict[str, Sender]()
    for name in ("sender", "twin"):
        headers = await application.headers(name)
        senders[name] = Sender(headers, await _project(application, headers, "own"))
    return {"hidden": hidden, "owner": Sender(owner, project), **senders}


async def test_who_has_no_access_learns_nothing_from_storing(application: Application, kept: dict[str, Any]) -> None:
    before = await _looks(application, kept["owner"], kept["hidden"])
    for taken, way in (
        (UIDS[:1], "STOW"),
        (UIDS[:2], "STOW"),
        (UIDS, "STOW"),
        (UIDS[1:2], "STOW"),
        (UIDS[2:], "STOW"),
        (UIDS[:1], "upload"),
        (UIDS, "upload"),
    ):
        # Both are new to each: what was sent for another case is theirs, and would show.
        told: list[Any] = []
        for name in ("sender", "twin"):
            by = Sender(kept[name].headers, await _project(application, kept[name].headers, "for one case"))
            uids = {one: kept["hidden"][one] for one in taken} if name == "sender" else {}
            told.append(await _told(application, by, invent_one(PatientID="MINE", Modality="CT", **uids), way))
            await _forget(application, by)
        assert _differences(*told) == [], (taken, way)
    after = await _looks(application, kept["owner"], kept["hidden"])
    assert [one.text for one in after] == [one.text for one in before], "and who keeps it notices nothing"


async def _forget(application: Application, by: Sender) -> None:
    async with application.services.db.write(SYSTEM) as tx:
        await tx.execute("delete from project_items where project_id = $1", UUID(by.project))


async def _draw(application: Application, project: str, on: dict[str, str], by: Actor) -> None:
    """A segmentation of a series that the sender does not see."""
    async with application.services.db.write(SYSTEM) as tx:
        drawn = await tx.fetchval(
            "insert into segmentations (id, project_id, study_id, study_instance_uid, series_instance_uid, created_by)"
            " select gen_random_uuid(), $1, st.id, $2, $3, $4 from studies st where st.study_instance_uid = $2 returning id",
            UUID(project), on["StudyInstanceUID"], on["SeriesInstanceUID"], by.user_id,
        )  # fmt: skip
        await tx.execute(
            "insert into segmentation_versions (segmentation_id, version, label, state, shape_kji, affine_lps, created_by)"
            " values ($1, 1, 'drawn', 'draft', '{1,1,1}', $2, $3)",
            drawn, [float(n % 5 == 0) for n in range(16)], by.user_id,
        )  # fmt: skip


async def test_who_sees_a_part_learns_nothing_of_the_rest(application: Application, kept: dict[str, Any]) -> None:
    """Of two studies one has a series that a rule hides. Storing into either is the same."""
    owner: Sender = kept["owner"]
    actor = await _actor(application, owner.headers)
    for taken in ((), UIDS[1:2], UIDS[1:], UIDS[2:]):
        told: list[Any] = []
        for name in ("sender", "twin"):
            project = await _project(application, owner.headers, "parts")
            seen = invent_one(PatientID="P", Modality="CT")
            hidden = invent_one(PatientID="P", Modality="MR", StudyInstanceUID=seen["StudyInstanceUID"])
            await store(application.services, actor, [seen, hidden] if name == "sender" else [seen], project)
            if name == "sender":
                await _draw(application, project, hidden, actor)
            by = Sender(kept[name].headers, project)
            person = str((await _actor(application, by.headers)).user_id)
            rule = {"effect": "ALLOW", "level": "SERIES", "attribute": "Modality", "operator": "EQ", "value": "CT"}
            for path, body in (("members", {"user_id": person, "role": "data_manager"}), ("rules", rule)):
                url = f"/api/v1/projects/{project}/{path}"
                answer = await application.client.post(url, json=body, headers=owner.headers)
                assert answer.status_code in (200, 201, 204), answer.text
            uids = {one: hidden[one] for one in taken} if name == "sender" else {}
            mine = invent_one(
                PatientID="P", SeriesNumber="2", **({"StudyInstanceUID": seen["StudyInstanceUID"]} | uids)
            )
            answers = await _told(application, by, mine, "STOW")
            told.append(
                [
                    (url, status, text.replace(seen[UIDS[1]], "<series>").replace(seen[UIDS[2]], "<instance>"), headers)
                    for url, status, text, headers in answers
                ]
            )
            await _forget(application, by)
        assert _differences(*told) == [], taken


async def _send(application: Application, actor: Actor, project: str, made: list[dict[str, str]]) -> list[StoreOutcome]:
    async def files() -> AsyncIterator[Incoming]:
        for one in made:
            yield Incoming(one["SOPInstanceUID"], data=headers_only(one))

    return await store_instances(application.services, actor, UUID(project), files())


async def _holdings(db: Database, uid: str) -> list[Any]:
    async with db.read(SYSTEM) as tx:
        return await tx.fetch(
            "select series_count, instance_count, repeated, sole_sender from studies where study_instance_uid = $1"
            " order by id",
            uid,
        )


async def test_senders_of_one_new_uid_at_once_do_not_hinder_each_other(
    application: Application, kept: dict[str, Any]
) -> None:
    first, second = kept["sender"], kept["twin"]
    actors = [await _actor(application, one.headers) for one in (first, second)]
    for shared in (False, True):
        study = invent_one()
        made = [[invent_one(StudyInstanceUID=study["StudyInstanceUID"]) for _ in range(3)] for _ in range(4)]
        projects = [first.project, second.project if not shared else first.project]
        if shared:
            body = {"user_id": str(actors[1].user_id), "role": "data_manager"}
            url = f"/api/v1/projects/{first.project}/members"
            answer = await application.client.post(url, json=body, headers=first.headers)
            assert answer.status_code in (200, 201), answer.text
        sent = await asyncio.gather(
            *(_send(application, actors[n % 2], projects[n % 2], files) for n, files in enumerate(made))
        )
        assert {outcome.state for outcomes in sent for outcome in outcomes} == {"stored"}
        held = await _holdings(application.services.db, study["StudyInstanceUID"])
        assert [(row["series_count"], row["instance_count"], row["repeated"]) for row in held] == (
            [(12, 12, False)] if shared else [(6, 6, True)] * 2
        )


async def test_who_sees_two_holdings_sees_one_study_and_of_each_instance_the_first(
    application: Application, kept: dict[str, Any]
) -> None:
    hidden, sender, owner = kept["hidden"], kept["sender"], kept["owner"]
    forged = hidden | {"PatientName": "Forged^One"}
    more = invent_one(**{name: hidden[name] for name in UIDS[:2]})
    actor = await _actor(application, sender.headers)
    assert [one.state for one in await _send(application, actor, sender.project, [forged, more])] == ["stored"] * 2
    # The owner comes to see the sender's project as well.
    body = {"user_id": str((await _actor(application, owner.headers)).user_id), "role": "data_manager"}
    url = f"/api/v1/projects/{sender.project}/members"
    assert (await application.client.post(url, json=body, headers=sender.headers)).status_code in (200, 201)
    base = f"/dicom-web/studies/{hidden['StudyInstanceUID']}"

    async def get(path: str) -> Any:
        answer = await application.client.get(path, headers=owner.headers)
        assert answer.status_code == 200, answer.text
        return answer.json()

    [study] = await get("/dicom-web/studies")
    assert (study["00201206"]["Value"], study["00201208"]["Value"]) == ([1], [2])
    assert study["00100010"]["Value"][0]["Alphabetic"] == "Hidden^One"
    assert study["00080061"]["Value"] == ["MR"]
    [series] = await get(f"{base}/series")
    assert series["00201209"]["Value"] == [2]
    names = {
        row["00080018"]["Value"][0]: row["00100010"]["Value"][0]["Alphabetic"] for row in await get(f"{base}/metadata")
    }
    assert names == {hidden["SOPInstanceUID"]: "Hidden^One", more["SOPInstanceUID"]: more["PatientName"].split("=")[0]}
    assert len(await get(f"{base}/instances")) == len(await get("/dicom-web/instances")) == 2
    # Both come along into another project, and leave it.
    mine = await _project(application, owner.headers, "both")
    studies = f"/api/v1/projects/{mine}/studies"
    named = {"study_instance_uid": hidden["StudyInstanceUID"]}
    assert (await application.client.post(studies, json=named, headers=owner.headers)).status_code == 201
    listed = await get(studies)
    assert (len(listed["items"]), listed["total"]) == (1, 1)
    gone = await application.client.delete(f"{studies}/{hidden['StudyInstanceUID']}", headers=owner.headers)
    assert gone.status_code == 204
    assert (await get(studies))["items"] == []


async def test_what_left_a_project_does_not_come_back_by_its_uid(
    application: Application, kept: dict[str, Any]
) -> None:
    sender: Sender = kept["sender"]
    actor = await _actor(application, sender.headers)
    first = invent_one()
    await _send(application, actor, sender.project, [first])
    url = f"/api/v1/projects/{sender.project}/studies/{first['StudyInstanceUID']}"
    assert (await application.client.delete(url, headers=sender.headers)).status_code == 204
    for again in (first, invent_one(StudyInstanceUID=first["StudyInstanceUID"])):
        [outcome] = await _send(application, actor, sender.project, [again])
        assert outcome.state == "stored", "as if nothing were kept"
    held = await _holdings(application.services.db, first["StudyInstanceUID"])
    assert [(row["instance_count"], row["sole_sender"]) for row in held] == [(1, None), (2, actor.user_id)]


async def test_annotations_are_bound_to_what_their_own_project_holds(
    application: Application, kept: dict[str, Any]
) -> None:
    sender, twin = kept["sender"], kept["twin"]
    study = invent_one()
    body = {
        "project_id": sender.project, "study_instance_uid": study["StudyInstanceUID"], "kind": "label", "label": "early",
    }  # fmt: skip
    made = await application.client.post("/api/v1/annotations", json=body, headers=sender.headers)
    assert made.status_code == 201, made.text
    url = f"/api/v1/annotations/{made.json()['id']}"

    async def bound() -> Any:
        async with application.services.db.read(SYSTEM) as tx:
            return await tx.fetchval(
                "select st.stored_into from annotations a left join studies st on st.id = a.study_id where a.study_instance_uid"
                " = $1",
                study["StudyInstanceUID"],
            )

    await _send(application, await _actor(application, twin.headers), twin.project, [study])
    assert (await application.client.get(url, headers=sender.headers)).status_code == 200
    assert await bound() is None, "what others hold is nothing to it"
    await _send(application, await _actor(application, sender.headers), sender.project, [study])
    assert (await application.client.get(url, headers=sender.headers)).status_code == 200
    assert await bound() == UUID(sender.project)


async def test_the_audit_of_a_project_tells_no_patient_of_a_study_that_others_hold(
    application: Application, kept: dict[str, Any]
) -> None:
    sender, uid = kept["sender"], kept["hidden"]["StudyInstanceUID"]
    owners = kept["owner"].project
    async with application.services.db.read(SYSTEM) as tx:
        found = await tx.fetch(
            "select project_id, patient_id from patients_of($1, $2)",
            [uid] * 3,
            [UUID(sender.project), UUID(owners), None],
        )
    assert [(row["project_id"], row["patient_id"]) for row in found] == [(UUID(owners), "HIDDEN"), (None, "HIDDEN")]
