"""The same remotes over DIMSE, with pynetdicom on the other side."""

import io
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import pytest
from pydicom import dcmread

from annotomy.actor import SYSTEM
from annotomy.dimse.peers import NewPeer, add_peer
from annotomy.remotes.push import push_due
from tests.remotes.hospital import SERIES, STUDY, Hospital, allow_loopback, project_with_remote
from tests.remotes.test_bring import bring, kept
from tests.remotes.test_push import ask as ask_push
from tests.remotes.test_push import attempt, told_of
from tests.support.application import Application
from tests.support.dicom_files import ct_instance, ct_series
from tests.support.dicom_listener import in_thread, listening
from tests.support.dimse_pacs import PACS_TITLE, DimsePacs, dimse_pacs


@dataclass
class DimseHospital(Hospital):
    pacs: DimsePacs  # pyright: ignore[reportIncompatibleVariableOverride]

    async def describe(self, **change: Any) -> None:
        headers = await self.headers("admin")
        at = f"/api/v1/remotes/{self.remote_id}"
        now = await self.application.client.get(at, headers=headers)
        body = {"name": "PACS", "kind": "dimse", "dimse": now.json()["dimse"] | change}
        changed = await self.application.client.put(at, json=body, headers=headers | {"If-Match": now.headers["etag"]})
        assert changed.status_code == 200, changed.text


@pytest.fixture
async def ward(application: Application) -> AsyncGenerator[DimseHospital]:
    allow_loopback(application.services)
    files = ct_series(4, study_instance_uid=STUDY, series_instance_uid=SERIES)
    async with dimse_pacs(*files) as pacs:
        address = {"host": "127.0.0.1", "port": pacs.port, "ae_title": PACS_TITLE}
        remote_id, project_id = await project_with_remote(
            application, {"name": "PACS", "kind": "dimse", "dimse": address}
        )
        yield DimseHospital(application, pacs, files, remote_id, project_id)


def pixels(files: Any) -> dict[str, bytes]:
    """What may not change on the way: a data set is written anew by pynetdicom."""
    read = [dcmread(io.BytesIO(file)) for file in files]
    return {str(one.SOPInstanceUID): one.PixelData for one in read}


async def test_echo_query_and_series_over_dimse(ward: DimseHospital) -> None:
    echo = (await ward.post_as("admin", f"/remotes/{ward.remote_id}/echo")).json()
    assert echo["ok"], echo
    ward.pacs.hold(ct_instance(study_instance_uid="1.2.9", series_instance_uid="1.2.9.1", patient_id="T-9"))
    found = (await ward.query()).json()["items"]
    assert sorted(one["study_instance_uid"] for one in found) == [STUDY, "1.2.9"]
    [row] = (await ward.query(PatientID="T-9")).json()["items"]
    assert row["attributes"]["00100020"]["Value"] == ["T-9"]
    assert len((await ward.query(limit=1)).json()["items"]) == 1, "the rest is cancelled"
    await ward.rule(effect="ALLOW", attribute="PatientID", value="T-9")
    assert [one["study_instance_uid"] for one in (await ward.query()).json()["items"]] == ["1.2.9"]
    at = f"/remotes/{ward.remote_id}/studies/{STUDY}/series"
    assert (await ward.get(at, project_id=str(ward.project_id))).status_code == 404
    await ward.describe(ae_title="WRONG")
    echo = (await ward.post_as("admin", f"/remotes/{ward.remote_id}/echo")).json()
    assert echo["problem"]["type"] == "urn:annotomy:problem:remote-refused"


async def test_a_study_comes_in_by_c_get_without_what_was_not_asked_for(ward: DimseHospital) -> None:
    ward.pacs.strays = [
        ct_instance(study_instance_uid="9.9.9", series_instance_uid="9.9.9.1"),
        ct_instance(study_instance_uid=STUDY, series_instance_uid=SERIES, number=99),
    ]
    told = await bring(ward)
    assert (told["state"], told["present"], told["refused"]) == ("succeeded", 4, {"another-instance": 2}), told
    assert pixels((await kept(ward)).values()) == pixels(ward.files)


async def test_a_c_get_that_is_aborted_is_resumed_with_the_rest(ward: DimseHospital) -> None:
    ward.pacs.breaks_after = 2
    told = await bring(ward)
    assert (told["state"], told["present"]) == ("succeeded", 4), "two each time"
    assert len(await kept(ward)) == 4


async def test_a_pacs_that_is_away_is_told(ward: DimseHospital) -> None:
    await ward.describe(port=1)
    answer = await ward.query()
    assert (answer.status_code, answer.json()["type"]) == (502, "urn:annotomy:problem:remote-failed")


async def test_a_c_move_brings_to_our_listener_into_the_project_that_asked(ward: DimseHospital) -> None:
    await ward.describe(retrieve="move")
    async with ward.services.db.write(SYSTEM) as tx:
        await add_peer(tx, NewPeer(PACS_TITLE))
    ward.pacs.strays = [ct_instance(study_instance_uid="9.9.9", series_instance_uid="9.9.9.1")]
    async with listening(ward.services) as listener:
        ward.pacs.destination_port = listener.port
        told = await bring(ward)
    assert (told["state"], told["present"]) == ("succeeded", 4), told
    assert pixels((await kept(ward)).values()) == pixels(ward.files)
    studies = await ward.get(f"/projects/{ward.project_id}/studies")
    assert [one["study_instance_uid"] for one in studies.json()["items"]] == [STUDY]
    async with ward.services.db.read(SYSTEM) as tx:
        assert await tx.fetchval("select count(*) from studies") == 1, "what was not asked for is refused"


async def pushed(ward: DimseHospital) -> dict[str, Any]:
    await ward.keep(await ward.actor("owner"), ward.project_id, ward.files)
    ward.pacs.files.clear()
    return await ask_push(ward)


async def test_a_push_by_c_store_is_promised_on_the_same_association(ward: DimseHospital) -> None:
    await ward.describe(commitment=True)
    told = await attempt(ward, await pushed(ward))
    assert (told["state"], told["counts"]) == ("committed", {"committed": 4}), told
    assert pixels(ward.pacs.files.values()) == pixels(ward.files)


async def test_a_promise_that_comes_later_is_taken_and_a_refused_one_is_sent_again(
    ward: DimseHospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("annotomy.dimse.remote.RESULT_S", 0.05)
    await ward.describe(commitment=True)
    ward.pacs.commits = False
    asked = await pushed(ward)
    told = await attempt(ward, asked)
    assert (told["state"], told["counts"]) == ("sent", {"sent": 4})
    async with ward.services.db.write(SYSTEM) as tx:
        await add_peer(tx, NewPeer(PACS_TITLE))
    lost = next(iter(ward.pacs.files))
    del ward.pacs.files[lost]
    async with listening(ward.services) as listener:
        ward.pacs.destination_port = listener.port
        assert await in_thread(lambda: ward.pacs.report_later(ward.pacs.asked_for_commitment[0])) == 0x0000
        told = await told_of(ward, asked)
        assert (told["state"], told["counts"]) == ("queued", {"committed": 3, "pending": 1})
        assert await push_due(ward.services) == 1
        await attempt(ward, asked)
        assert lost in ward.pacs.files
        again = await in_thread(lambda: ward.pacs.report_later(ward.pacs.asked_for_commitment[-1]))
        assert again == 0x0000
        replayed = await in_thread(lambda: ward.pacs.report_later(ward.pacs.asked_for_commitment[0]))
        assert replayed == 0x0112, "a transaction that nobody waits for"
    told = await told_of(ward, asked)
    assert (told["state"], told["counts"]) == ("committed", {"committed": 4})


async def test_a_c_store_that_is_refused_is_told_for_each_instance(ward: DimseHospital) -> None:
    ward.pacs.store_status = 0xC000
    told = await attempt(ward, await pushed(ward))
    assert (told["state"], told["counts"]) == ("dead", {"refused": 4})
    assert {one["reason"] for one in told["instances"]} == {"refused by the remote (C000H)"}
