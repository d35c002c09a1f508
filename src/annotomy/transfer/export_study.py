"""Writes a study's instances (WADO-RS, PS3.18 10.4) or its segmentations (their own export) into a folder."""

import asyncio
import csv
import errno
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
from pydicom import dcmread

from annotomy.dicom.multipart import MultipartError, boundary_of, read_parts
from annotomy.transfer.connection import TransferError, body_of, problem_text

PIECE_BYTES = 1 << 20
SUFFIXES = {"nifti": ".nii.gz", "seg": ".dcm", "rtstruct": ".dcm"}
PAGE = 500


def export_dicom(
    client: httpx.Client,
    study_instance_uid: str,
    folder: Path,
    *,
    series_instance_uid: str | None = None,
    told: Callable[[Path], None],
) -> None:
    """Each instance as `<series>/<instance>.dcm`, of the study or one of its series.

    Raises TransferError, and FileExistsError before anything is overwritten.
    """
    address = f"/dicom-web/studies/{study_instance_uid}"
    if series_instance_uid is not None:
        address += f"/series/{series_instance_uid}"
    headers = {"Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
    with client.stream("GET", address, headers=headers) as answer:
        if not answer.is_success:
            answer.read()
            raise TransferError(problem_text(answer))

        async def pieces() -> AsyncIterator[bytes]:
            for piece in answer.iter_bytes(PIECE_BYTES):
                yield piece

        async def write_parts() -> None:
            async for part in read_parts(pieces(), boundary_of(answer.headers.get("content-type", ""))):
                told(await _write_instance(part.body, folder))

        try:
            asyncio.run(write_parts())
        except MultipartError as error:
            raise TransferError(f"The answer broke off: {error}") from error


async def _write_instance(body: AsyncIterator[bytes], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    arriving = folder / ".arriving"
    with arriving.open("wb") as file:
        async for piece in body:
            file.write(piece)
    header = dcmread(arriving, stop_before_pixels=True, specific_tags=["SeriesInstanceUID", "SOPInstanceUID"])
    target = folder / str(header.SeriesInstanceUID) / f"{header.SOPInstanceUID}.dcm"
    target.parent.mkdir(exist_ok=True)
    if target.exists():
        arriving.unlink()
        raise FileExistsError(errno.EEXIST, "File exists", str(target))
    return arriving.rename(target)


def export_segmentations(
    client: httpx.Client, study_instance_uid: str, folder: Path, form: str, *, told: Callable[[Path], None]
) -> None:
    """Each segmentation of the study as `segmentation-<id><suffix>`. Raises TransferError, FileExistsError."""
    for segmentation in _segmentations(client, study_instance_uid):
        folder.mkdir(parents=True, exist_ok=True)
        address = f"/api/v1/segmentations/{segmentation['id']}/export"
        exported = client.get(address, params={"format": form})
        if not exported.is_success:
            raise TransferError(problem_text(exported))
        target = folder / f"segmentation-{segmentation['id']}{SUFFIXES[form]}"
        with target.open("xb") as file:
            file.write(exported.content)
        told(target)


def export_statistics(
    client: httpx.Client, study_instance_uid: str, folder: Path, *, told: Callable[[Path], None]
) -> None:
    """`segments.csv`: a line for each segment of the study's segmentations. Raises TransferError, FileExistsError."""
    found = _segmentations(client, study_instance_uid)
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / "segments.csv"
    with target.open("x", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for one in found:
            for segment in one["segments"]:
                code, statistics = segment["code"], segment["statistics"]
                rows.writerow(
                    [
                        *(one[name] for name in COLUMNS[:5]),
                        segment["segment_number"],
                        segment["label"],
                        *(code[name] for name in ("value", "scheme", "meaning")),
                        statistics["voxels"],
                        statistics["volume_mm3"],
                    ]
                )
    told(target)


COLUMNS = (
    "study_instance_uid", "series_instance_uid", "id", "version", "state", "segment_number", "label",
    "code_value", "code_scheme", "code_meaning", "voxels", "volume_mm3",
)  # fmt: skip


def _segmentations(client: httpx.Client, study_instance_uid: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: str | None = None
    while True:
        query = {"study_instance_uid": study_instance_uid, "limit": str(PAGE)} | ({"cursor": cursor} if cursor else {})
        page = body_of(client.get("/api/v1/segmentations", params=query))
        found += page["items"]
        cursor = page["next"]
        if cursor is None:
            break
    if not found:
        raise TransferError("The study has no segmentation that you may see.")
    return found
