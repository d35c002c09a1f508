"""Bulk data: what metadata names by address is there, whole, in ranges, and inside of sequences."""

import io
from typing import Any

from pydicom import dcmread
from pydicom.dataset import Dataset

from tests.dicomweb.test_dicomweb import stow
from tests.support.application import Application
from tests.support.dicom_files import ct_series

DOCUMENT, PREVIEW = bytes(range(256)) * 8, bytes(range(255, -1, -1)) * 8


def with_bulk() -> tuple[bytes, Any]:
    dataset = dcmread(io.BytesIO(ct_series(1)[0]))
    dataset.add_new(0x00420011, "OB", DOCUMENT)  # an encapsulated document
    items = [Dataset(), Dataset()]
    items[1].add_new(0x00420011, "OB", PREVIEW)
    dataset.add_new(0x00880200, "SQ", items)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue(), dataset


async def test_values_named_by_address_are_served_whole_and_in_ranges(application: Application) -> None:
    headers = await application.headers("owner")
    file, dataset = with_bulk()
    assert (await stow(application, headers, [file])).status_code == 200
    base = f"/dicom-web/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}/instances/{dataset.SOPInstanceUID}"
    [metadata] = (await application.client.get(f"{base}/metadata", headers=headers)).json()
    outer, inner = (
        metadata["00420011"]["BulkDataURI"],
        metadata["00880200"]["Value"][1]["00420011"]["BulkDataURI"],
    )
    assert inner.endswith("/bulkdata/00880200/2/00420011")

    async def get(path: str, **more: str) -> Any:
        return await application.client.get(path, headers=headers | more)

    assert (await get(outer)).content == DOCUMENT
    assert (await get(inner)).content == PREVIEW
    part = await get(outer, Range="bytes=10-19")
    assert (part.status_code, part.content) == (206, DOCUMENT[10:20])
    assert part.headers["content-range"] == "bytes 10-19/2048"
    assert (await get(outer, Range="bytes=-5")).content == DOCUMENT[-5:]
    assert (await get(outer, Range="bytes=2040-")).content == DOCUMENT[2040:]
    assert (await get(outer, Range="bytes=0-1,3-4")).status_code == 200
    assert (await get(outer, Range="bytes=2048-")).status_code == 416
    assert DOCUMENT in (await get(outer, Accept='multipart/related; type="application/octet-stream"')).content
    assert (await get(outer, Accept="image/png")).status_code == 406
    for nowhere in (
        "00420012",
        "00100010",
        "00880200/0/00420011",
        "00880200/3/00420011",
        "00880200/1",
        "x",
        "00880200",
    ):
        assert (await get(f"{base}/bulkdata/{nowhere}")).status_code == 404, nowhere
    stranger = await application.headers("stranger")
    assert (await application.client.get(outer, headers=stranger)).status_code == 404
