"""STOW-RS of metadata and bulk data: what is put together is the instance that the parts describe."""

import io
import json
from typing import Any
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.encaps import generate_frames

from annotomy.dicom.native_xml import json_of_xml
from tests.dicomweb.test_dicomweb import BOUNDARY
from tests.support.application import Application
from tests.support.dicom_files import ct_series

Parts = list[tuple[dict[str, str], bytes]]


def message(parts: Parts) -> bytes:
    body = bytearray()
    for headers, data in parts:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        body += f"--{BOUNDARY}\r\n{lines}\r\n".encode() + data + b"\r\n"
    return bytes(body) + f"--{BOUNDARY}--\r\n".encode()


async def send(
    application: Application, headers: dict[str, str], parts: Parts, kind: str = "application/dicom+json"
) -> Any:
    content_type = f'multipart/related; type="{kind}"; boundary={BOUNDARY}'
    return await application.client.post(
        "/dicom-web/studies", content=message(parts), headers=headers | {"Content-Type": content_type}
    )


def described(dataset: Dataset, location: str) -> dict[str, Any]:
    """Its DICOM JSON, with the pixels elsewhere."""
    item: dict[str, Any] = json.loads(dataset.to_json())
    item["7FE00010"] = {"vr": item["7FE00010"]["vr"], "BulkDataURI": location}
    return item


JSON_PART = {"Content-Type": "application/dicom+json"}


async def whole(application: Application, headers: dict[str, str], dataset: Dataset) -> Any:
    answer = await application.client.get(
        "/dicom-web/wado",
        params={
            "requestType": "WADO", "studyUID": dataset.StudyInstanceUID, "seriesUID": dataset.SeriesInstanceUID,
            "objectUID": dataset.SOPInstanceUID, "contentType": "application/dicom", "transferSyntax": "*",
        },
        headers=headers,
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    return dcmread(io.BytesIO(answer.content))


async def test_json_and_bulk_data_become_the_instance_with_names_of_every_script(application: Application) -> None:
    headers = await application.headers("owner")
    sources = [dcmread(io.BytesIO(data)) for data in ct_series(2, patient_name="Hong^Gildong=洪^吉洞=홍^길동")]
    parts: Parts = [(JSON_PART, json.dumps([described(one, f"b{n}") for n, one in enumerate(sources)]).encode())]
    parts += [
        ({"Content-Type": "application/octet-stream", "Content-Location": f"b{n}"}, one.PixelData)
        for n, one in enumerate(sources)
    ]
    answer = await send(application, headers, parts)
    assert (answer.status_code, len(answer.json()["00081199"]["Value"])) == (200, 2)
    for source in sources:
        kept = await whole(application, headers, source)
        assert kept == source
        assert str(kept.PatientName) == "Hong^Gildong=洪^吉洞=홍^길동"
    assert (await send(application, headers, parts)).status_code == 200  # the same again is the same file


async def test_compressed_frames_are_encapsulated_in_their_order(application: Application) -> None:
    path = get_testdata_file("MR_small_RLE.dcm", download=False)
    assert isinstance(path, str)
    headers = await application.headers("owner")
    source = dcmread(path)
    [frame] = generate_frames(source.PixelData, number_of_frames=1)
    parts: Parts = [
        (JSON_PART, json.dumps([described(source, "frames")]).encode()),
        ({"Content-Type": "image/dicom-rle", "Content-Location": "frames"}, frame),
    ]
    assert (await send(application, headers, parts)).status_code == 200
    kept = await whole(application, headers, source)
    assert kept.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID
    assert (kept.pixel_array == source.pixel_array).all()


def native(dataset: Dataset, location: str) -> bytes:
    """The Native DICOM Model of it, as far as these test files go."""

    def attributes(one: dict[str, Any]) -> str:
        return "".join(attribute(tag, value) for tag, value in one.items())

    def attribute(tag: str, value: dict[str, Any]) -> str:
        inner = f'<BulkData uri="{value["BulkDataURI"]}"/>' if "BulkDataURI" in value else ""
        for number, one in enumerate(value.get("Value", []), 1):
            if value["vr"] == "SQ":
                inner += f'<Item number="{number}">{attributes(one)}</Item>'
            elif value["vr"] == "PN":
                groups = "".join(
                    f"<{group}>{''.join(f'<{part}>{text}</{part}>' for part, text in zip(('FamilyName', 'GivenName'), name.split('^'), strict=True))}</{group}>"
                    for group, name in one.items()
                )
                inner += f'<PersonName number="{number}">{groups}</PersonName>'
            elif one is not None:
                inner += f'<Value number="{number}">{escape(str(one))}</Value>'
        return f'<DicomAttribute tag="{tag}" vr="{value["vr"]}">{inner}</DicomAttribute>'

    body = attributes(described(dataset, location))
    return f'<?xml version="1.0" encoding="UTF-8"?><NativeDicomModel xmlns="urn:x">{body}</NativeDicomModel>'.encode()


async def test_xml_and_bulk_data_become_the_instance(application: Application) -> None:
    headers = await application.headers("owner")
    [data] = ct_series(1, patient_name="Yamada^Tarou=山田^太郎=やまだ^たろう")
    source = dcmread(io.BytesIO(data))
    xml = native(source, "pixels")
    assert ElementTree.fromstring(xml).tag.endswith("NativeDicomModel")  # noqa: S314 - our own
    parts: Parts = [
        ({"Content-Type": "application/dicom+xml"}, xml),
        ({"Content-Type": "application/octet-stream", "Content-Location": "pixels"}, source.PixelData),
    ]
    answer = await send(application, headers, parts, "application/dicom+xml")
    assert answer.status_code == 200, answer.text
    assert await whole(application, headers, source) == source


async def test_each_instance_has_its_own_outcome(application: Application) -> None:
    headers = await application.headers("owner")
    good, lost, short = (dcmread(io.BytesIO(data)) for data in ct_series(3))
    parts: Parts = [
        (JSON_PART, json.dumps([described(good, "a"), described(lost, "nowhere"), described(short, "c"), 7]).encode()),
        ({"Content-Location": "a"}, good.PixelData),
        ({"Content-Location": "c"}, short.PixelData[:100]),
    ]
    answer = await send(application, headers, parts)
    assert answer.status_code == 202
    kept, failed = (answer.json()[tag]["Value"] for tag in ("00081199", "00081198"))
    assert [one["00081155"]["Value"][0] for one in kept] == [good.SOPInstanceUID]
    assert lost.SOPInstanceUID in [one.get("00081155", {}).get("Value", [""])[0] for one in failed]
    assert len(failed) == 3
    assert all(one["00081197"]["Value"] == [0xC000] for one in failed)


async def test_messages_that_describe_nothing_are_refused_whole(application: Application) -> None:
    headers = await application.headers("owner")
    assert (await send(application, headers, [({"Content-Location": "a"}, b"x")])).status_code == 400
    assert (await send(application, headers, [(JSON_PART, b"{"), ({}, b"x")])).status_code == 400
    assert (await send(application, headers, [(JSON_PART, b"[{}]"), ({}, b"x")])).status_code == 400
    assert (await send(application, headers, [(JSON_PART, b"[]")], "text/plain")).status_code == 415


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE x [<!ENTITY a "b">]><NativeDicomModel>&a;</NativeDicomModel>', "<Other/>", "<NativeDicomModel>", "",
        '<NativeDicomModel><DicomAttribute tag="00200013" vr="IS"><Value number="x">1</Value></DicomAttribute></NativeDicomModel>',
        "<NativeDicomModel>" + '<DicomAttribute tag="00081140" vr="SQ"><Item>' * 40 + "</Item></DicomAttribute>" * 40 + "</NativeDicomModel>",
    ],
)  # fmt: skip
def test_xml_that_is_no_data_set_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        json_of_xml(text.encode())
