"""WADO-URI for clients that name everything in the query string."""

import io
from typing import Any

import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from annotomy.actor import SYSTEM
from tests.dicomweb.test_dicomweb import stow
from tests.support.application import Application
from tests.support.dicom_files import ct_series


def named(file: bytes, **more: str) -> dict[str, str]:
    dataset = dcmread(io.BytesIO(file), stop_before_pixels=True)
    return {
        "requestType": "WADO",
        "studyUID": dataset.StudyInstanceUID,
        "seriesUID": dataset.SeriesInstanceUID,
        "objectUID": dataset.SOPInstanceUID,
        **more,
    }


async def test_an_instance_comes_as_stored_as_asked_and_as_a_picture(application: Application) -> None:
    headers = await application.headers("owner")
    [file] = ct_series(1)
    await stow(application, headers, [file])

    async def get(**more: str) -> Any:
        return await application.client.get("/dicom-web/wado", params=named(file, **more), headers=headers)

    whole = await get(contentType="application/dicom")
    assert (whole.headers["content-type"], whole.content) == ("application/dicom", file)
    implicit = dcmread(
        io.BytesIO((await get(contentType="application/dicom", transferSyntax="1.2.840.10008.1.2")).content)
    )
    assert implicit.file_meta.TransferSyntaxUID == ImplicitVRLittleEndian
    assert implicit.PixelData == dcmread(io.BytesIO(file)).PixelData
    picture = await get()
    assert picture.headers["content-type"] == "image/jpeg"
    window = {"windowCenter": "-1000", "windowWidth": "300"}
    small = await get(contentType="image/png", rows="8", region="0,0,0.5,1", imageQuality="80", **window)
    assert Image.open(io.BytesIO(small.content)).size == (4, 8)
    for wrong in (
        {"requestType": "OTHER"}, {"studyUID": ""}, {"windowCenter": "1"}, {"presentationUID": "1.2"}, {"rows": "0"},
        {"contentType": "application/dicom", "rows": "8"}, {"region": "0,0,2,1"}, {"transferSyntax": "1.2"},
    ):  # fmt: skip
        assert (await get(**wrong)).status_code == 400, wrong
    assert (await get(contentType="text/html")).status_code == 406
    assert (await get(contentType="application/dicom", transferSyntax="1.2.840.10008.1.2.4.90")).status_code == 406
    assert (await get(frameNumber="2")).status_code == 404
    refused = await get(contentType="application/dicom", anonymize="yes")
    assert (refused.status_code, refused.json()["type"]) == (501, "urn:annotomy:problem:not-deidentified")


async def test_a_compressed_instance_is_uncompressed_unless_asked_for_as_stored(application: Application) -> None:
    headers = await application.headers("owner")
    path = get_testdata_file("MR_small_RLE.dcm", download=False)
    assert isinstance(path, str)
    with open(path, "rb") as opened:  # noqa: ASYNC230, PTH123 - a small local file
        file = opened.read()
    await stow(application, headers, [file])
    parameters = named(file, contentType="application/dicom")
    plain = await application.client.get("/dicom-web/wado", params=parameters, headers=headers)
    read = dcmread(io.BytesIO(plain.content))
    assert read.file_meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert (read.pixel_array == dcmread(io.BytesIO(file)).pixel_array).all()
    stored = await application.client.get(
        "/dicom-web/wado", params=parameters | {"transferSyntax": "*"}, headers=headers
    )
    assert stored.content == file


@pytest.mark.parametrize("who", ["stranger", None])
async def test_who_does_not_see_an_instance_does_not_get_it(application: Application, who: str | None) -> None:
    owner = await application.headers("owner")
    [file] = ct_series(1)
    await stow(application, owner, [file])
    headers = {} if who is None else await application.headers(who)
    answer = await application.client.get("/dicom-web/wado", params=named(file), headers=headers)
    assert answer.status_code == (401 if who is None else 404)


async def test_a_retrieval_is_in_the_audit_under_its_series(application: Application) -> None:
    headers = await application.headers("owner")
    [file] = ct_series(1)
    await stow(application, headers, [file])
    parameters = named(file)
    assert (await application.client.get("/dicom-web/wado", params=parameters, headers=headers)).status_code == 200
    async with application.services.db.read(SYSTEM) as tx:
        found = await tx.fetch("select content from audit_outbox union all select object_id || action from audit")
    assert [row for (row,) in found if "study.retrieved" in row and parameters["seriesUID"] in row]
