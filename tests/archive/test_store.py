"""What the store operation promises: durable and visible, or refused with a reason; never half, never overwritten."""

import io
from collections.abc import AsyncIterator, Iterable

from pydicom import dcmread
from pydicom.uid import generate_uid

from annotomy.actor import Actor
from annotomy.archive.query import Query, query
from annotomy.archive.retrieve import locate, read_instance
from annotomy.archive.store import Incoming, StoreOutcome, store_instances
from annotomy.dicom.part10 import data_set_start, file_head
from annotomy.services import Services
from tests.support.application import Application
from tests.support.dicom_files import ct_instance, ct_series


async def _stream(files: Iterable[bytes]) -> AsyncIterator[Incoming]:
    for number, data in enumerate(files):
        yield Incoming(str(number), data=data)


async def _store(services: Services, actor: Actor, files: Iterable[bytes]) -> list[StoreOutcome]:
    return await store_instances(services, actor, None, _stream(files))


async def test_a_series_is_stored_once_and_comes_back_byte_for_byte(application: Application) -> None:
    services, actor = application.services, await application.add_user("owner")
    files = ct_series(4)
    first = await _store(services, actor, files)
    assert [o.state for o in first] == ["stored"] * 4
    again = await _store(services, actor, files)
    assert [o.state for o in again] == ["already"] * 4
    async with services.db.read(actor) as tx:
        located = await locate(tx, study_instance_uid=first[0].study_instance_uid)
        found = await query(tx, Query("study"))
    assert [await read_instance(services, at) for at in located] == files
    assert found.rows[0]["00201208"]["Value"] == [4]
    assert found.rows[0]["00080061"]["Value"] == ["CT"]


async def test_a_bad_file_is_refused_and_the_rest_goes_on(application: Application) -> None:
    actor = await application.add_user("owner")
    good = ct_series(1)[0]
    cut = good[:-100]
    outcomes = await _store(application.services, actor, [b"not dicom at all", cut, good])
    assert [o.state for o in outcomes] == ["refused", "refused", "stored"]
    assert all(o.problem is not None and o.problem.slug == "not-dicom" for o in outcomes[:2])


async def test_another_content_under_a_known_uid_is_refused(application: Application) -> None:
    services, actor = application.services, await application.add_user("owner")
    study, series, sop = generate_uid(), generate_uid(), generate_uid()
    first, other = (
        ct_instance(study_instance_uid=study, series_instance_uid=series, sop_instance_uid=sop, number=n)
        for n in (1, 2)
    )
    assert [o.state for o in await _store(services, actor, [first, other])] == ["stored", "refused"]
    async with services.db.read(actor) as tx:
        [at] = await locate(tx, sop_instance_uid=sop)
    assert await read_instance(services, at) == first


async def test_the_same_data_set_under_another_file_head_is_the_same_instance(application: Application) -> None:
    services, actor = application.services, await application.add_user("owner")
    [file] = ct_series(1)
    dataset = dcmread(io.BytesIO(file), stop_before_pixels=True)
    head = file_head(
        sop_class_uid=str(dataset.SOPClassUID),
        sop_instance_uid=str(dataset.SOPInstanceUID),
        transfer_syntax_uid=str(dataset.file_meta.TransferSyntaxUID),
    )
    other = head + file[data_set_start(file) :]
    assert other != file
    assert [o.state for o in await _store(services, actor, [file, other])] == ["stored", "already"]
    async with services.db.read(actor) as tx:
        [at] = await locate(tx, sop_instance_uid=str(dataset.SOPInstanceUID))
    assert await read_instance(services, at) == file


async def test_nobody_gains_a_study_by_naming_its_uid(application: Application) -> None:
    services = application.services
    owner, thief = await application.add_user("owner"), await application.add_user("thief")
    files = ct_series(1)
    [stored] = await _store(services, owner, files)
    probe = ct_instance(study_instance_uid=stored.study_instance_uid, series_instance_uid=generate_uid())
    [brought] = await _store(services, thief, [probe])
    assert brought.state == "stored"
    for actor, own in ((owner, stored), (thief, brought)):
        async with services.db.read(actor) as tx:
            [row] = (await query(tx, Query("instance"))).rows
            assert row["00080018"]["Value"] == [own.sop_instance_uid]
            assert await tx.fetchval("select count(*) from instances") == 1, (
                "row-level security hides rows without any predicate"
            )


async def test_queries_match_as_the_standard_says(application: Application) -> None:
    services, actor = application.services, await application.add_user("owner")
    files = [
        *ct_series(1, patient_name="Hong^Gildong=洪^吉洞=홍^길동", patient_id="K-1", study_date="20250505"),
        *ct_series(1, patient_name="Honda^Ken", patient_id="J-1", study_date="20260606"),
        *ct_series(1, patient_name="Smith_Jones^A", patient_id="E_1", study_date=""),
    ]
    assert all(o.state == "stored" for o in await _store(services, actor, files))

    async def ids(**match: str) -> list[str]:
        async with services.db.read(actor) as tx:
            found = await query(tx, Query("study", match))
        return sorted(row["00100020"]["Value"][0] for row in found.rows)

    assert await ids(PatientName="hon*") == ["J-1", "K-1"]
    assert await ids(PatientName="*길동*") == ["K-1"]
    assert await ids(PatientName="honda^ken") == ["J-1"]
    assert await ids(PatientID="E_?") == ["E_1"]
    assert await ids(PatientID="?-1") == ["J-1", "K-1"]
    assert await ids(StudyDate="20250101-20251231") == ["K-1"]
    assert await ids(StudyDate="20260101-") == ["J-1"]
    assert await ids(ModalitiesInStudy="MR") == []
    assert await ids(PatientID="%") == []


async def test_the_kept_header_reads_as_the_file_does(application: Application) -> None:
    from annotomy.archive.retrieve import headers, read_header

    services, actor = application.services, await application.add_user("owner")
    [data] = ct_series(1)
    [stored] = await _store(services, actor, [data])
    async with services.db.read(actor) as tx:
        located = await locate(tx, sop_instance_uid=stored.sop_instance_uid)
        [kept] = await headers(tx, located)
    expected = dcmread(io.BytesIO(data), stop_before_pixels=True)
    assert read_header(kept).to_json() == expected.to_json()
