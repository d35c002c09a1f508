"""Writes a study's instances (WADO-RS, PS3.18 10.4) or its segmentations (their own export) into a folder."""

import asyncio
import errno
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
from pydicom import dcmread

from annotomy.dicom.multipart import MultipartError, boundary_of, read_parts
from annotomy.transfer.connection import TransferError, body_of, problem_text

PIECE_BYTES = 1 << 20
SUFFIXES = {"nifti": ".nii.gz", "seg": ".dcm"}


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
    """Each segmentation of the study as `<label>-<id><suffix>`. Raises TransferError, FileExistsError."""
    answer = client.get("/api/v1/segmentations", params={"study_instance_uid": study_instance_uid, "limit": 1000})
    found = body_of(answer)["items"]
    if not found:
        raise TransferError("The study has no segmentation that you may see.")
    folder.mkdir(parents=True, exist_ok=True)
    for segmentation in found:
        address = f"/api/v1/segmentations/{segmentation['id']}/export"
        exported = client.get(address, params={"format": form})
        if not exported.is_success:
            raise TransferError(problem_text(exported))
        target = folder / f"segmentation-{segmentation['id']}{SUFFIXES[form]}"
        with target.open("xb") as file:
            file.write(exported.content)
        told(target)
