"""DICOMweb as clients use it: store, query, retrieve, render; and the same through dicomweb-client."""

import io
from typing import Any

import pytest
from PIL import Image
from pydicom import dcmread
from pydicom.data import get_testdata_file

from tests.support.application import Application
from tests.support.dicom_files import ct_series

BOUNDARY = "boundary-of-a-test"


def multipart(files: list[bytes]) -> bytes:
    parts = [f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode() + data + b"\r\n" for data in files]
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


async def stow(application: Application, headers: dict[str, str], files: list[bytes]) -> Any:
    content_type = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
    return await application.client.post(
        "/dicom-web/studies", content=multipart(files), headers=headers | {"Content-Type": content_type}
    )


async def test_what_is_stored_is_found_and_comes_back(application: Application) -> None:
    headers = await application.headers("owner")
    files = ct_series(3)
    first = dcmread(io.BytesIO(files[0]))
    answer = await stow(application, headers, files)
    assert answer.status_code == 200
    assert len(answer.json()["00081199"]["Value"]) == 3
    study = f"/dicom-web/studies/{first.StudyInstanceUID}"
    series = f"{study}/series/{first.SeriesInstanceUID}"
    found = (
        await application.client.get("/dicom-web/studies?PatientID=T-1&includefield=all&limit=101", headers=headers)
    ).json()
    assert [row["0020000D"]["Value"][0] for row in found] == [first.StudyInstanceUID]
    assert (await application.client.get(f"{study}/series?includefield=0008103E", headers=headers)).json()[0][
        "00201209"
    ]["Value"] == [3]
    assert len((await application.client.get(f"{series}/instances", headers=headers)).json()) == 3
    metadata = (await application.client.get(f"{series}/metadata", headers=headers)).json()
    assert metadata[0]["00280010"]["Value"] == [16]
    instance = f"{series}/instances/{first.SOPInstanceUID}"
    frame = await application.client.get(
        f"{instance}/frames/1", headers=headers | {"Accept": "application/octet-stream"}
    )
    assert frame.content == first.PixelData
    whole = await application.client.get(instance, headers=headers)
    assert files[0] in whole.content
    picture = await application.client.get(
        f"{instance}/rendered?window=40,400", headers=headers | {"Accept": "image/png"}
    )
    assert Image.open(io.BytesIO(picture.content)).size == (16, 16)
    assert (await application.client.get(f"{instance}/frames/2", headers=headers)).status_code == 404
    assert (await application.client.get(f"{series}/thumbnail", headers=headers)).headers[
        "content-type"
    ] == "image/jpeg"


async def test_a_stranger_finds_and_gets_nothing(application: Application) -> None:
    owner, stranger = await application.headers("owner"), await application.headers("stranger")
    files = ct_series(1)
    await stow(application, owner, files)
    first = dcmread(io.BytesIO(files[0]))
    study = f"/dicom-web/studies/{first.StudyInstanceUID}"
    for path in (study, f"{study}/metadata", f"{study}/thumbnail"):
        assert (await application.client.get(path, headers=stranger)).status_code == 404
    assert (await application.client.get("/dicom-web/studies", headers=stranger)).json() == []
    assert (await application.client.get(f"{study}/series", headers=stranger)).json() == []


async def test_bad_parts_are_told_one_by_one(application: Application) -> None:
    headers = await application.headers("owner")
    mixed = await stow(application, headers, [b"junk", *ct_series(1)])
    assert mixed.status_code == 202
    assert mixed.json()["00081198"]["Value"][0]["00081197"]["Value"] == [0xC000]
    all_bad = await stow(application, headers, [b"junk"])
    assert all_bad.status_code == 409
    cut = await application.client.post(
        "/dicom-web/studies",
        content=multipart(ct_series(1))[:-60],
        headers=headers | {"Content-Type": f"multipart/related; boundary={BOUNDARY}"},
    )
    assert cut.status_code == 400


@pytest.mark.parametrize(
    "name",
    ["JPEG2000.dcm", "MR_small_RLE.dcm", "color3d_jpeg_baseline.dcm", "examples_palette.dcm", "SC_ybr_full_422_uncompressed.dcm",
     "JPGExtended.dcm", "image_dfl.dcm", "MR_small_bigendian.dcm", "examples_ybr_color.dcm", "liver_1frame.dcm"],
)  # fmt: skip
async def test_every_encoding_is_rendered_and_its_frames_are_served(application: Application, name: str) -> None:
    path = get_testdata_file(name, download=False)
    assert isinstance(path, str), f"pydicom ships {name}"
    headers = await application.headers("owner")
    with open(path, "rb") as file:  # noqa: ASYNC230, PTH123 - a small local file
        data = file.read()
    assert (await stow(application, headers, [data])).status_code == 200
    dataset = dcmread(path)
    instance = f"/dicom-web/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"
    picture = await application.client.get(f"{instance}/rendered", headers=headers)
    assert picture.status_code == 200, picture.text
    assert Image.open(io.BytesIO(picture.content)).size == (dataset.Columns, dataset.Rows)
    frame = await application.client.get(f"{instance}/frames/1", headers=headers)
    assert frame.status_code == 200
    assert frame.headers["content-type"].startswith("multipart/related")
    assert (await application.client.get(f"{instance}/metadata", headers=headers)).status_code == 200
