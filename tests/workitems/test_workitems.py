"""The worklist over UPS-RS: created, claimed, updated, finished, searched, followed; in whose project, and who sees it."""

import asyncio
import io
import json
from typing import Any
from uuid import UUID

import httpx
import pytest
from pydicom import dcmread

from annotomy.actor import SYSTEM, Actor
from annotomy.inference.predict import predict
from annotomy.inference.schemas import NewPrediction
from annotomy.jobs.queue import cancel_job
from annotomy.workitems.attributes import code
from tests.dicomweb.test_dicomweb import BOUNDARY, multipart
from tests.support.application import Application
from tests.support.dicom_files import ct_series

DICOM_JSON = {"Content-Type": "application/dicom+json"}
LOCK = "1.2.826.0.1.42"
WORKITEMS = "/dicom-web/workitems"


def new(study: Any = None, **more: Any) -> dict[str, Any]:
    """A data set that N-CREATE takes; `more` are tags with values."""
    item: dict[str, Any] = {
        "00741000": {"vr": "CS", "Value": ["SCHEDULED"]},
        "00741200": {"vr": "CS", "Value": ["HIGH"]},
        "00741202": {"vr": "LO", "Value": ["readings"]},
        "00741204": {"vr": "LO", "Value": ["Liver volumetry"]},
        "00404005": {"vr": "DT", "Value": ["20260301101500"]},
        "00404041": {"vr": "CS", "Value": ["READY"]},
        "00404018": code("121726", "DCM", "Volumetry"),
        "00100010": {
            "vr": "PN",
            "Value": [{"Alphabetic": "Hong^Gildong", "Ideographic": "洪^吉洞", "Phonetic": "홍^길동"}],
        },
        "00100020": {"vr": "LO", "Value": ["T-1"]},
    }
    if study is not None:
        item["00404021"] = {"vr": "SQ", "Value": [{"0020000D": {"vr": "UI", "Value": [study]}}]}
    return item | more


def state(word: str, lock: str | None = LOCK) -> list[dict[str, Any]]:
    transaction = {} if lock is None else {"00081195": {"vr": "UI", "Value": [lock]}}
    return [{"00741000": {"vr": "CS", "Value": [word]}, **transaction}]


PERFORMED = {
    "00741216": {
        "vr": "SQ",
        "Value": [
            {
                "00404028": code("WS1", "99TEST", "Workstation"),
                "00404050": {"vr": "DT", "Value": ["20260301102000"]},
                "00404019": code("121726", "DCM", "Volumetry"),
                "00404051": {"vr": "DT", "Value": ["20260301103000"]},
                "00404033": {"vr": "SQ"},
            }
        ],
    }
}


class Worklist:
    """A person's hand on the worklist of one project."""

    def __init__(self, application: Application, headers: dict[str, str], project: str) -> None:
        self.client, self.headers, self.project = application.client, headers, project

    async def ask(self, method: str, path: str, body: Any = None, **query: str) -> httpx.Response:
        content = None if body is None else json.dumps(body).encode()
        headers = self.headers | DICOM_JSON
        return await self.client.request(method, f"{WORKITEMS}{path}", params=query, content=content, headers=headers)

    async def create(self, item: dict[str, Any] | None = None) -> str:
        answer = await self.ask("POST", "", [item or new()], project_id=self.project)
        assert answer.status_code == 201, answer.text
        return answer.headers["location"].rsplit("/", 1)[1]

    async def get(self, uid: str) -> dict[str, Any]:
        answer = await self.ask("GET", f"/{uid}")
        assert answer.status_code == 200, answer.text
        return answer.json()[0]

    async def found(self, **query: str) -> list[str]:
        answer = await self.ask("GET", "", None, **query)
        assert answer.status_code == 200, answer.text
        return [one["00080018"]["Value"][0] for one in answer.json()]


async def project_of(application: Application, headers: dict[str, str]) -> str:
    answer = await application.client.post("/api/v1/projects", json={"name": "reading"}, headers=headers)
    return answer.json()["id"]


async def member(application: Application, worklist: Worklist, name: str, role: str) -> Worklist:
    headers = await application.headers(name)
    me = (await application.client.get("/api/v1/users/me", headers=headers)).json()["id"]
    added = await application.client.post(
        f"/api/v1/projects/{worklist.project}/members", json={"user_id": me, "role": role}, headers=worklist.headers
    )
    assert added.status_code in (200, 201), added.text
    return Worklist(application, headers, worklist.project)


@pytest.fixture
async def owner(application: Application) -> Worklist:
    headers = await application.headers("owner")
    return Worklist(application, headers, await project_of(application, headers))


async def test_a_workitem_is_claimed_done_and_closed_by_who_holds_its_transaction_uid(owner: Worklist) -> None:
    uid = await owner.create()
    assert (await owner.ask("PUT", f"/{uid}/state", state("IN PROGRESS", None))).status_code == 400
    assert (await owner.ask("PUT", f"/{uid}/state", state("COMPLETED"))).json()["status_code"] == "C310"
    assert (await owner.ask("PUT", f"/{uid}/state", state("IN PROGRESS"))).status_code == 200
    assert (await owner.ask("PUT", f"/{uid}/state", state("IN PROGRESS"))).json()["status_code"] == "C302"
    held = await owner.get(uid)
    assert held["00741000"]["Value"] == ["IN PROGRESS"]
    assert LOCK not in json.dumps(held)  # the lock is told to nobody
    assert (await owner.ask("POST", f"/{uid}", [PERFORMED])).status_code == 400
    assert (await owner.ask("POST", f"/{uid}", [PERFORMED], transaction="1.2.3")).json()["status_code"] == "C301"
    early = await owner.ask("PUT", f"/{uid}/state", state("COMPLETED"))
    assert (early.status_code, early.json()["status_code"]) == (409, "C304")
    assert (await owner.ask("POST", f"/{uid}", [PERFORMED], transaction=LOCK)).status_code == 200
    assert (await owner.ask("PUT", f"/{uid}/state", state("COMPLETED"))).status_code == 200
    again = await owner.ask("PUT", f"/{uid}/state", state("COMPLETED"))
    assert (again.status_code, "B306" in again.headers["warning"]) == (200, True)
    assert (await owner.ask("POST", f"/{uid}", [PERFORMED], transaction=LOCK)).json()["status_code"] == "C310"
    assert (await owner.ask("POST", f"/{uid}/cancelrequest")).json()["status_code"] == "C311"


async def test_a_cancellation_ends_what_waits_and_only_tells_who_performs(owner: Worklist) -> None:
    waiting, claimed = await owner.create(), await owner.create()
    assert (await owner.ask("POST", f"/{waiting}/cancelrequest", [{}])).status_code == 202
    ended = await owner.get(waiting)
    assert ended["00741000"]["Value"] == ["CANCELED"]
    progress = ended["00741002"]["Value"][0]
    assert progress["00404052"]["Value"]
    assert progress["0074100E"]["Value"][0]["00080100"]["Value"] == ["110513"]
    again = await owner.ask("POST", f"/{waiting}/cancelrequest")
    assert (again.status_code, "B304" in again.headers["warning"]) == (202, True)
    await owner.ask("PUT", f"/{claimed}/state", state("IN PROGRESS"))
    assert (await owner.ask("POST", f"/{claimed}/cancelrequest")).status_code == 202
    assert (await owner.get(claimed))["00741000"]["Value"] == ["IN PROGRESS"]
    assert (await owner.ask("PUT", f"/{claimed}/state", state("CANCELED"))).json()["status_code"] == "C304"
    reason = {"00741002": {"vr": "SQ", "Value": [{"0074100E": code("110501", "DCM", "Equipment failure")}]}}
    assert (await owner.ask("POST", f"/{claimed}", [reason], transaction=LOCK)).status_code == 200
    assert (await owner.ask("PUT", f"/{claimed}/state", state("CANCELED"))).status_code == 200
    assert (await owner.get(claimed))["00741002"]["Value"][0]["00404052"]["Value"]  # the server knows when


async def test_two_who_claim_at_once_do_not_both_get_it(owner: Worklist) -> None:
    uid = await owner.create()
    answers = await asyncio.gather(
        *(owner.ask("PUT", f"/{uid}/state", state("IN PROGRESS", f"1.2.{n}")) for n in range(1, 5))
    )
    assert sorted(one.status_code for one in answers) == [200, 400, 400, 400]


@pytest.mark.parametrize(
    "broken",
    [
        {"00741000": {"vr": "CS", "Value": ["IN PROGRESS"]}}, {"00741200": {"vr": "CS", "Value": ["URGENT"]}},
        {"00741204": {"vr": "LO"}}, {"00081195": {"vr": "UI", "Value": ["1.2"]}}, PERFORMED,
        {"00404005": {"vr": "DT"}}, {"00020010": {"vr": "UI", "Value": ["1.2"]}}, {"zzz": 1},
    ],
)  # fmt: skip
async def test_a_data_set_that_makes_no_workitem_is_refused(owner: Worklist, broken: dict[str, Any]) -> None:
    assert (await owner.ask("POST", "", [new() | broken], project_id=owner.project)).status_code == 400


async def test_a_uid_names_one_workitem(owner: Worklist) -> None:
    bare = await owner.ask("POST", "", [new()], **{"project_id": owner.project, "1.2.3.4": ""})  # as before 2019
    assert bare.headers["location"] == f"{WORKITEMS}/1.2.3.4"
    first = await owner.ask("POST", "", [new()], project_id=owner.project, workitem="1.2.3.5")
    assert first.headers["location"] == f"{WORKITEMS}/1.2.3.5"
    again = await owner.ask("POST", "", [new()], project_id=owner.project, workitem="1.2.3.5")
    assert (again.status_code, again.json()["status_code"]) == (409, "0111")
    assert (await owner.ask("POST", "", [new()], project_id=owner.project, workitem="seven")).status_code == 400
    assert (await owner.ask("POST", "", [new()])).status_code == 400  # no project
    assert (
        await owner.ask("POST", "/1.2.3.5", [{"00100010": {"vr": "PN"}}])
    ).status_code == 400  # not theirs to change
    xml = owner.headers | {"Content-Type": "application/dicom+xml"}
    assert (await owner.client.post(f"{WORKITEMS}?project_id={owner.project}", headers=xml)).status_code == 415


async def test_search_matches_any_attribute_also_inside_of_sequences(owner: Worklist) -> None:
    high = await owner.create()
    low = await owner.create(
        new(
            **{
                "00741200": {"vr": "CS", "Value": ["LOW"]},
                "00404005": {"vr": "DT", "Value": ["20260401"]},
                "00404018": code("999", "99TEST", "Other"),
                "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Kim^Anna"}]},
            }
        )
    )
    for query, expected in (
        ({}, [high, low]),
        ({"ScheduledProcedureStepPriority": "LOW"}, [low]),
        ({"ProcedureStepState": "SCHEDULED"}, [high, low]),
        ({"ProcedureStepState": "COMPLETED"}, []),
        ({"ScheduledProcedureStepStartDateTime": "20260301-20260331"}, [high]),
        ({"00404005": "-20260301"}, [high]),
        ({"ScheduledWorkitemCodeSequence.CodeValue": "121726"}, [high]),
        ({"00404018.00080100": "999"}, [low]),
        ({"PatientName": "hong*"}, [high]),
        ({"PatientName": "洪*"}, [high]),
        ({"PatientName": "홍^길동"}, [high]),
        ({"SOPInstanceUID": f"{low},1.2.3"}, [low]),
        ({"ProcedureStepLabel": "*volum*"}, [high, low]),
        ({"limit": "1"}, [high]),
        ({"limit": "1", "offset": "1"}, [low]),
    ):
        assert await owner.found(**query) == expected, query
    assert "299" in (await owner.ask("GET", "", None, limit="1")).headers["warning"]
    for wrong in ({"TransactionUID": "1"}, {"Nonsense": "1"}, {"00404005": "yesterday"}, {"00404018": "1"}):
        assert (await owner.ask("GET", "", None, **wrong)).status_code == 400, wrong


async def test_a_workitem_is_seen_in_its_project_by_who_sees_its_study(
    application: Application, owner: Worklist
) -> None:
    files = ct_series(1)
    study = dcmread(io.BytesIO(files[0])).StudyInstanceUID
    stored = await application.client.post(
        f"/dicom-web/studies?project_id={owner.project}",
        content=multipart(files),
        headers=owner.headers | {"Content-Type": f"multipart/related; boundary={BOUNDARY}"},
    )
    assert stored.status_code == 200
    uid = await owner.create(new(study))
    viewer = await member(application, owner, "viewer", "viewer")
    annotator = await member(application, owner, "annotator", "annotator")
    stranger = Worklist(application, await application.headers("stranger"), owner.project)
    assert await viewer.found() == await annotator.found() == [uid]
    assert await stranger.found() == []
    assert (await stranger.ask("GET", f"/{uid}")).status_code == 404
    assert (await viewer.ask("PUT", f"/{uid}/state", state("IN PROGRESS"))).status_code == 403
    assert (await annotator.ask("POST", "", [new()], project_id=owner.project)).status_code == 403
    assert (await annotator.ask("PUT", f"/{uid}/state", state("IN PROGRESS"))).status_code == 200
    assert (await stranger.ask("POST", "", [new()], project_id=owner.project)).status_code == 404
    assert (await owner.ask("POST", "", [new("1.2.3")], project_id=owner.project)).status_code == 404
    # A rule that hides the study hides its work, in the query and behind it by row-level security.
    me = (await application.client.get("/api/v1/users/me", headers=viewer.headers)).json()["id"]
    for rule in ({"effect": "ALLOW"}, {"effect": "DENY", "user_id": me}):
        body = {"level": "STUDY", "attribute": "PatientID", "operator": "PRESENT", "value": True} | rule
        added = await application.client.post(
            f"/api/v1/projects/{owner.project}/rules", json=body, headers=owner.headers
        )
        assert added.status_code == 201, added.text
    assert await viewer.found() == []
    assert await annotator.found() == [uid]
    async with application.services.db.read(Actor(UUID(me), "viewer")) as tx:
        assert await tx.fetchval("select count(*) from workitems") == 0


async def test_a_prediction_is_a_workitem_that_only_this_server_performs(
    application: Application, owner: Worklist
) -> None:
    files = ct_series(2)
    first = dcmread(io.BytesIO(files[0]))
    await application.client.post(
        f"/dicom-web/studies?project_id={owner.project}",
        content=multipart(files),
        headers=owner.headers | {"Content-Type": f"multipart/related; boundary={BOUNDARY}"},
    )
    me = (await application.client.get("/api/v1/users/me", headers=owner.headers)).json()["id"]
    actor = Actor(UUID(me), "owner")
    model = next(iter(application.services.runners))
    asked = NewPrediction(model=model, project_id=UUID(owner.project), series_instance_uid=str(first.SeriesInstanceUID))
    async with application.services.db.write(actor) as tx:
        made = await predict(tx, application.services.runners, asked)
    uid = f"2.25.{made.id.int}"
    found = await owner.get(uid)
    assert found["00741000"]["Value"] == ["SCHEDULED"]
    assert found["00404021"]["Value"][0]["0020000E"]["Value"] == [first.SeriesInstanceUID]
    assert await owner.found(WorklistLabel="predictions", ProcedureStepState="SCHEDULED") == [uid]
    assert (await owner.ask("PUT", f"/{uid}/state", state("IN PROGRESS"))).status_code == 409
    assert (await owner.ask("POST", f"/{uid}", [PERFORMED])).status_code == 409
    assert (await owner.ask("POST", f"/{uid}/cancelrequest")).status_code == 202
    assert (await owner.get(uid))["00741000"]["Value"] == ["CANCELED"]
    async with application.services.db.write(SYSTEM) as tx:
        await cancel_job(tx, made.job_id)  # ended already: nothing changes
        await tx.execute("update jobs set state = 'running' where id = $1", made.job_id)
    assert await owner.found(ProcedureStepState="IN PROGRESS") == [uid]


async def reports(
    application: Application, headers: dict[str, str], subscriber: str, last: str | None
) -> list[dict[str, Any]]:
    """What the subscriber is told at once; the server is said to stop after a turn."""

    class OneTurn:
        turns = 0

        def is_set(self) -> bool:
            self.turns += 1
            return self.turns > 1

    async def ending(scope: Any, receive: Any, send: Any) -> None:
        await asgi(scope | {"state": {"draining": OneTurn()}}, receive, send)

    asgi: Any = application.app
    transport = httpx.ASGITransport(ending, raise_app_exceptions=False)
    more = {} if last is None else {"Last-Event-ID": last}
    async with httpx.AsyncClient(transport=transport, base_url="http://annotomy.test") as client:
        answer = await client.get(f"/dicom-web/subscribers/{subscriber}", headers=headers | more)
    assert answer.status_code == 200, answer.text
    return [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: ")]


def told(found: list[dict[str, Any]]) -> list[tuple[str, int, str]]:
    return [
        (one["00001000"]["Value"][0], one["00001002"]["Value"][0], one.get("00741000", {}).get("Value", [""])[0])
        for one in found
    ]


async def test_a_subscriber_is_told_of_what_it_follows_and_sees(application: Application, owner: Worklist) -> None:
    async def numbered() -> None:
        answer = await application.client.get("/api/v1/events/log", headers=owner.headers)
        assert answer.status_code == 200

    one, other = await owner.create(), await owner.create()
    well_known = "1.2.840.10008.5.1.4.34.5"
    assert (await application.client.get("/dicom-web/subscribers/ONE", headers=owner.headers)).status_code == 404
    subscribed = await owner.ask("POST", f"/{one}/subscribers/ONE")
    assert (subscribed.status_code, subscribed.headers["content-location"]) == (201, "/dicom-web/subscribers/ONE")
    assert (await owner.ask("POST", f"/{well_known}/subscribers/ALL")).status_code == 201
    low = await owner.ask(
        "POST", f"/{well_known}.1/subscribers/SOME", None, filter="ScheduledProcedureStepPriority=LOW"
    )
    assert low.status_code == 201
    assert (await owner.ask("POST", f"/{well_known}.1/subscribers/SOME")).status_code == 400
    assert (await owner.ask("POST", "/1.2.9/subscribers/ONE")).status_code == 404
    third = await owner.create(new(**{"00741200": {"vr": "CS", "Value": ["LOW"]}}))
    await owner.ask("PUT", f"/{one}/state", state("IN PROGRESS"))
    await owner.ask("POST", f"/{one}/cancelrequest", [{"0074100E": code("110501", "DCM", "Equipment failure")}])
    await numbered()
    assert told(await reports(application, owner.headers, "ONE", "0"))[-2:] == [(one, 1, "IN PROGRESS"), (one, 2, "")]
    assert told(await reports(application, owner.headers, "ONE", None)) == [(one, 1, "IN PROGRESS")]  # as it is now
    assert {uid for uid, *_ in told(await reports(application, owner.headers, "ALL", "0"))} == {one, other, third}
    assert {uid for uid, *_ in told(await reports(application, owner.headers, "SOME", "0"))} == {third}
    # Out of the global subscription, and later ones out of a suspended one.
    assert (await owner.ask("DELETE", f"/{other}/subscribers/ALL")).status_code == 200
    assert (await owner.ask("POST", f"/{well_known}/subscribers/ALL/suspend")).status_code == 200
    later = await owner.create()
    await numbered()
    assert {uid for uid, *_ in told(await reports(application, owner.headers, "ALL", "0"))} == {one, third}
    assert later
    assert (await owner.ask("DELETE", f"/{well_known}/subscribers/ALL")).status_code == 200
    assert (await owner.ask("DELETE", f"/{well_known}/subscribers/ALL")).status_code == 404
    # Another's subscription to everything tells nothing of a project that they are not in.
    stranger = Worklist(application, await application.headers("stranger"), owner.project)
    assert (await stranger.ask("POST", f"/{well_known}/subscribers/ALL")).status_code == 201
    assert told(await reports(application, stranger.headers, "ALL", "0")) == []
