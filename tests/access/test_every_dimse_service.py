"""Every DIMSE service, called by every kind of peer: what is not theirs is answered as if it did not exist.

Beside test_every_actor.py, which does the same for HTTP. A service that is negotiated and not in `CALLS` fails the test.
"""

import io
import threading
from collections.abc import Callable
from typing import Any

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, MRImageStorage, generate_uid
from pynetdicom import AE, build_role, evt

from annotomy.actor import SYSTEM
from annotomy.dimse import negotiation as known
from annotomy.dimse.peers import NewPeer, add_peer
from annotomy.dimse.server import Listener
from tests.dimse.test_retrieve import Received, identifier, storage_scp
from tests.support.application import Application
from tests.support.dicom_files import ct_series
from tests.support.dicom_listener import OUR_TITLE, in_thread, listening

PROJECT_PEER, STRANGER, HIDDEN, MUTE = "OWNER", "STRANGER", "HIDDEN", "MUTE"
OUTSIDE = [STRANGER, HIDDEN]
REFUSED = 0x0124
"""Refused: not authorised (PS3.7 C.5.19)."""
TARGET = "TARGET"

Answer = tuple[Any, ...]


def _associate(port: int, title: str, contexts: list[str], **more: Any) -> Any:
    ae = AE(ae_title=title)
    for uid in contexts:
        ae.add_requested_context(UID(uid), ExplicitVRLittleEndian)
    return ae.associate("127.0.0.1", port, ae_title=OUR_TITLE, **more)


def _echo(port: int, title: str, file: bytes) -> Answer:
    del file
    association = _associate(port, title, [known.VERIFICATION])
    status = association.send_c_echo().Status
    association.release()
    return (status,)


def _store(port: int, title: str, file: bytes) -> Answer:
    """Into a study that the peer may or may not see."""
    association = _associate(port, title, [CTImageStorage, MRImageStorage])
    dataset = dcmread(io.BytesIO(file))
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    status = association.send_c_store(dataset).Status
    association.release()
    return (status,)


def _find(model: str, level: str) -> Callable[[int, str, bytes], Answer]:
    def call(port: int, title: str, file: bytes) -> Answer:
        keys = _keys(level, file) | {"PatientID": "", "StudyDate": ""}
        association = _associate(port, title, [model])
        got = list(association.send_c_find(identifier(level, **keys), UID(model)))
        association.release()
        return got[-1][0].Status, [str(found) for _, found in got if found is not None]

    return call


def _get(model: str, level: str) -> Callable[[int, str, bytes], Answer]:
    def call(port: int, title: str, file: bytes) -> Answer:
        received = Received()
        association = _associate(
            port,
            title,
            [model, CTImageStorage],
            ext_neg=[build_role(CTImageStorage, scp_role=True)],
            evt_handlers=[(evt.EVT_C_STORE, received)],
        )
        *_, (final, _) = association.send_c_get(identifier(level, **_keys(level, file)), UID(model))
        association.release()
        return final.Status, final.get("NumberOfCompletedSuboperations"), len(received.by_uid)

    return call


def _move(model: str, level: str) -> Callable[[int, str, bytes], Answer]:
    def call(port: int, title: str, file: bytes) -> Answer:
        association = _associate(port, title, [model])
        *_, (final, _) = association.send_c_move(identifier(level, **_keys(level, file)), TARGET, UID(model))
        association.release()
        return final.Status, final.get("NumberOfCompletedSuboperations"), final.get("NumberOfFailedSuboperations")

    return call


def _commit(port: int, title: str, file: bytes) -> Answer:
    told: list[Answer] = []
    came = threading.Event()

    def result(event: Any) -> tuple[int, None]:
        failed = event.event_information.get("FailedSOPSequence", [])
        told.append((event.event_type, [int(item.FailureReason) for item in failed]))
        came.set()
        return 0, None

    association = _associate(port, title, [known.STORAGE_COMMITMENT], evt_handlers=[(evt.EVT_N_EVENT_REPORT, result)])
    asked, item = Dataset(), Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = CTImageStorage, _keys("IMAGE", file)["SOPInstanceUID"]
    asked.TransactionUID, asked.ReferencedSOPSequence = generate_uid(), [item]
    status, _ = association.send_n_action(asked, 1, UID(known.STORAGE_COMMITMENT), UID("1.2.840.10008.1.20.1.1"))
    came.wait(20)
    association.release()
    return status.Status, *told


def _keys(level: str, file: bytes) -> dict[str, str]:
    header = dcmread(io.BytesIO(file), stop_before_pixels=True)
    keywords = {
        "PATIENT": ["PatientID"],
        "STUDY": ["StudyInstanceUID"],
        "SERIES": ["StudyInstanceUID", "SeriesInstanceUID"],
        "IMAGE": ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"],
    }[level]
    return {keyword: str(header[keyword].value) for keyword in keywords}


CALLS: dict[str, dict[str, Callable[[int, str, bytes], Answer]]] = {
    known.VERIFICATION: {"C-ECHO": _echo},
    known.STORAGE_ROOT: {"C-STORE": _store},
    known.STORAGE_COMMITMENT: {"N-ACTION": _commit},
    known.PATIENT_ROOT_FIND: {"C-FIND PATIENT": _find(known.PATIENT_ROOT_FIND, "PATIENT")},
    known.STUDY_ROOT_FIND: {f"C-FIND {one}": _find(known.STUDY_ROOT_FIND, one) for one in ("STUDY", "SERIES", "IMAGE")},
    known.PATIENT_ROOT_GET: {"C-GET PATIENT": _get(known.PATIENT_ROOT_GET, "PATIENT")},
    known.STUDY_ROOT_GET: {f"C-GET {one}": _get(known.STUDY_ROOT_GET, one) for one in ("STUDY", "SERIES", "IMAGE")},
    known.PATIENT_ROOT_MOVE: {"C-MOVE PATIENT": _move(known.PATIENT_ROOT_MOVE, "PATIENT")},
    known.STUDY_ROOT_MOVE: {f"C-MOVE {one}": _move(known.STUDY_ROOT_MOVE, one) for one in ("STUDY", "SERIES", "IMAGE")},
}
CALLS_BY_NAME = {name: call for calls in CALLS.values() for name, call in calls.items()}
READS = {
    name: call for calls in CALLS.values() for name, call in calls.items() if name[:2] == "C-" and "STO" not in name
}
READS.pop("C-ECHO")


@pytest.fixture
async def peers(application: Application) -> list[bytes]:
    """Peers of two projects, and one from whom a rule of the first hides the study. Returns the study's files."""
    client, services = application.client, application.services
    owner, other = await application.headers("owner"), await application.headers("outsider")

    async def post(path: str, body: Any, by: dict[str, str]) -> Any:
        answer = await client.post(f"/api/v1{path}", json=body, headers=by)
        assert answer.status_code == 201, answer.text
        return answer.json()

    project = (await post("/projects", {"name": "trial"}, owner))["id"]
    elsewhere = (await post("/projects", {"name": "elsewhere"}, other))["id"]
    async with services.db.write(SYSTEM) as tx:
        await add_peer(tx, NewPeer(PROJECT_PEER, project_id=project))
        await add_peer(tx, NewPeer(HIDDEN, project_id=project))
        await add_peer(tx, NewPeer(STRANGER, project_id=elsewhere))
        await add_peer(tx, NewPeer(MUTE, project_id=project, may_store=False, may_query=False, may_retrieve=False))
        hidden = await tx.fetchval("select user_id from dimse_peers where ae_title = $1", HIDDEN)
    rule = {"level": "STUDY", "attribute": "PatientID", "operator": "PRESENT", "value": True}
    await post(f"/projects/{project}/rules", rule | {"effect": "ALLOW"}, owner)
    await post(f"/projects/{project}/rules", rule | {"effect": "DENY", "user_id": str(hidden)}, owner)
    return ct_series(2)


async def test_what_is_not_a_peers_own_is_answered_as_if_it_did_not_exist(
    application: Application, peers: list[bytes]
) -> None:
    absent = ct_series(1, patient_id="NOBODY")[0]
    received, wrong = Received(), list[str]()
    async with listening(application.services) as listener:
        with storage_scp(received, TARGET) as port:
            async with application.services.db.write(SYSTEM) as tx:
                await add_peer(tx, NewPeer(TARGET, host="127.0.0.1", port=port))
            for file in peers:
                assert await in_thread(lambda file=file: _stored(listener, file)) == 0
            assert set(CALLS) == {*known.SERVICES, known.STORAGE_ROOT}, "give a new service its calls in CALLS"
            for name, call in (READS | {"N-ACTION": _commit}).items():
                mine = await in_thread(lambda call=call: call(listener.port, PROJECT_PEER, peers[0]))
                if not any(mine[1:]):
                    wrong.append(f"{name}: the owner gets nothing: {mine}")
                for title in OUTSIDE:
                    theirs = await in_thread(lambda call=call, title=title: call(listener.port, title, peers[0]))
                    nothing = await in_thread(lambda call=call, title=title: call(listener.port, title, absent))
                    if theirs != nothing:
                        wrong.append(f"{title}: {name}: {theirs} is not {nothing}")
            moved = len(received.by_uid)
            for name, call in (READS | {"C-STORE": _store}).items():
                refused = await in_thread(lambda call=call: call(listener.port, MUTE, peers[0]))
                if refused[0] != REFUSED:
                    wrong.append(f"{MUTE}: {name}: {refused}")
            assert len(received.by_uid) == moved
            # Under the UIDs of what they do not see they store, and find afterwards, as under any others.
            for title in OUTSIDE:
                told = [
                    await in_thread(lambda f=file, t=title, name=name: CALLS_BY_NAME[name](listener.port, t, f))
                    for name in ("C-STORE", *READS)
                    for file in (peers[0], absent)
                ]
                for taken, free in zip(told[::2], told[1::2], strict=True):
                    if _without_values(taken) != _without_values(free):
                        wrong.append(f"{title}: after C-STORE: {taken} is not {free}")
    assert not wrong, "\n".join(wrong)
    headers = await application.headers("owner")
    found = (await application.client.get("/dicom-web/instances", headers=headers)).json()
    assert len(found) == len(peers) + 2, (
        "what the hidden peer stored into the same project, and nothing of the stranger's"
    )


async def test_who_is_no_peer_is_not_let_in_to_any_service(application: Application, peers: list[bytes]) -> None:
    del peers
    async with application.services.db.write(SYSTEM) as tx:
        await tx.execute("update users set state = 'suspended' where username = 'aet-OWNER'")
    contexts = [*known.SERVICES, CTImageStorage]
    async with listening(application.services) as listener:
        for title in ("UNKNOWN", PROJECT_PEER):
            for context in contexts:
                association = await in_thread(lambda t=title, c=context: _associate(listener.port, t, [c]))
                assert not association.is_established, (title, context)


def _without_values(answer: Answer) -> Answer:
    return tuple([len(one.splitlines()) for one in part] if isinstance(part, list) else part for part in answer)


def _stored(listener: Listener, file: bytes) -> int:
    association = _associate(listener.port, PROJECT_PEER, [CTImageStorage])
    status = association.send_c_store(dcmread(io.BytesIO(file))).Status
    association.release()
    return status
