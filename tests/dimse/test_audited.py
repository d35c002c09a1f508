"""Queries and retrievals of peers are in the audit as those of DICOMweb are, refusals too, and no patient is named."""

from typing import Any

import pytest

from annotomy.actor import SYSTEM
from annotomy.dimse.negotiation import STUDY_ROOT_FIND
from annotomy.dimse.peers import NewPeer, add_peer
from annotomy.ops.audit_queue import AuditQueue
from annotomy.services import Services
from tests.dimse.test_find import ask
from tests.dimse.test_retrieve import Received, c_get, identifier, study_of
from tests.dimse.test_store import send
from tests.support.dicom_files import ct_series
from tests.support.dicom_listener import in_thread, listening


async def _records(services: Services, actor: str) -> list[Any]:
    async with services.db.read(SYSTEM) as tx:
        rows = await tx.fetch(
            "select content::jsonb as record from audit_outbox union all select to_jsonb(a) from audit a"
        )
    return [row["record"] for row in rows if row["record"]["actor_name"].startswith(actor)]


async def test_what_a_peer_asks_for_and_gets_is_recorded(services: Services) -> None:
    files = ct_series(2, patient_id="SECRET-7")
    study = study_of(files[0])
    async with listening(services) as listener:
        assert await in_thread(lambda: send(listener.port, files)) == [0, 0]
        await in_thread(lambda: ask(listener.port, STUDY_ROOT_FIND, QueryRetrieveLevel="STUDY", PatientID="SECRET-7"))
        by_study = {"QueryRetrieveLevel": "SERIES", "StudyInstanceUID": study}
        await in_thread(lambda: ask(listener.port, STUDY_ROOT_FIND, **by_study))
        received = Received()
        for uid in (study, study, "1.2.3.4"):
            asked = identifier("STUDY", StudyInstanceUID=uid)
            await in_thread(lambda asked=asked: c_get(listener.port, asked, received))
        assert len(received.by_uid) == 2
    records = await _records(services, "TESTSCU")
    reads = [
        (one["action"], one["object_kind"], one["object_id"], one["outcome"])
        for one in records
        if one["action"] != "study.stored"
    ]
    assert sorted(reads) == sorted(
        [
            ("study.searched", "list", "", "success"),
            ("study.searched", "study", study, "success"),
            ("study.retrieved", "study", study, "success"),
            ("study.retrieved", "study", study, "success"),
            ("study.retrieved", "study", "1.2.3.4", "not-found"),
        ]
    )
    assert {one["source"] for one in records if one["action"] != "study.stored"} == {"127.0.0.1"}
    assert {one["actor_kind"] for one in records} == {"aet"}
    assert all(one["patient"] for one in records if one["object_id"] == study)
    assert "SECRET" not in str(records)


async def test_what_a_peer_may_not_do_is_recorded_as_denied(services: Services) -> None:
    async with services.db.write(SYSTEM) as tx:
        await add_peer(tx, NewPeer("STORER", may_query=False, may_retrieve=False))
    async with listening(services) as listener:
        _, status = await in_thread(
            lambda: ask(listener.port, STUDY_ROOT_FIND, title="STORER", QueryRetrieveLevel="STUDY")
        )
        assert status not in (0, 0xFF00)
        asked = identifier("STUDY", StudyInstanceUID="1.2.3")
        await in_thread(lambda: c_get(listener.port, asked, Received(), title="STORER"))
    records = await _records(services, "STORER")
    assert [(one["action"], one["outcome"]) for one in records] == [
        ("study.searched", "denied"),
        ("study.retrieved", "denied"),
    ]


async def test_nothing_is_sent_that_cannot_be_recorded(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    files = ct_series(1)
    received = Received()
    asked = identifier("STUDY", StudyInstanceUID=study_of(files[0]))

    async def fail(self: AuditQueue, batch: object) -> None:
        del self, batch
        raise OSError("no space left")

    async with listening(services) as listener:
        assert await in_thread(lambda: send(listener.port, files)) == [0]
        with monkeypatch.context() as patch:
            patch.setattr(AuditQueue, "_write_once", fail)
            patch.setattr("annotomy.ops.audit_queue.RETRY_S", 0.0)
            [failed] = await in_thread(lambda: c_get(listener.port, asked, received))
        assert (failed.Status, received.by_uid) == (0x0110, {})
        await in_thread(lambda: c_get(listener.port, asked, received))
    assert len(received.by_uid) == 1
