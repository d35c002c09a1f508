"""Synthetic CT instances: made once with pydicom, then multiplied by writing other UIDs of the same length into them."""

import io
from dataclasses import dataclass
from functools import cache

import numpy as np
import pydicom
from pydicom.datadict import (
    DicomDictionary,  # pyright: ignore[reportPrivateImportUsage] - the table itself
)
from pydicom.dataset import FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

ROOT_UID = "1.2.826.0.1.3680043.10.1500"
FULL_ELEMENTS = 100
BOUNDARY = "annotomy-bench-boundary"
MULTIPART = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'


@dataclass(frozen=True)
class Instance:
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    data: bytes


def uid(kind: int, salt: int, number: int) -> str:
    """One length for all, so that bytes can be replaced in place."""
    return f"{ROOT_UID}.{kind}.1{salt:07d}.1{number:010d}"


def study(
    salt: int, *, instances: int, size: int, series: int = 1, number: int = 0, day: str = "20260101", full: bool = False
) -> list[Instance]:
    """One study of `series` series with `instances` slices of `size` x `size` each; other salts give other studies.

    `full` gives the slices some hundred attributes, as those of a scanner have.
    """
    made: list[Instance] = []
    study_uid = uid(1, salt, number)
    for s in range(series):
        series_uid = uid(2, salt, number * 100 + s)
        for k in range(instances):
            sop_uid = uid(3, salt, (number * 100 + s) * 1000 + k)
            data = _template(size, k % 8, full=full)
            for placeholder, value in ((uid(1, 0, 0), study_uid), (uid(2, 0, 0), series_uid), (uid(3, 0, 0), sop_uid)):
                data = data.replace(placeholder.encode(), value.encode())
            data = data.replace(b"PATIENT-00000000", f"PATIENT-{number:08d}".encode())
            data = data.replace(b"20260101", day.encode()) if day != "20260101" else data
            data = data.replace(b"-77777.7", f"{k * 2.5 - 300:08.2f}".encode()) if full else data
            made.append(Instance(study_uid, series_uid, sop_uid, data))
    return made


def multipart(instances: list[Instance]) -> bytes:
    body = io.BytesIO()
    for one in instances:
        body.write(f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode())
        body.write(one.data)
        body.write(b"\r\n")
    body.write(f"--{BOUNDARY}--\r\n".encode())
    return body.getvalue()


@cache
def _template(size: int, position: int, *, full: bool = False) -> bytes:
    """A noisy disc with the placeholders; eight positions, so that not every slice has the same pixels."""
    rng = np.random.default_rng(position)
    rows, columns = np.mgrid[:size, :size] - size / 2
    disc = np.where(np.hypot(rows, columns) < size * (0.3 + position / 100), 40, -1000)
    pixels = (disc + rng.normal(0, 12, (size, size))).astype(np.int16)
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(uid(3, 0, 0))
    dataset = pydicom.Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = CTImageStorage
    dataset.StudyInstanceUID = uid(1, 0, 0)
    dataset.SeriesInstanceUID = uid(2, 0, 0)
    dataset.SOPInstanceUID = uid(3, 0, 0)
    dataset.FrameOfReferenceUID = uid(4, 0, 0)
    dataset.PatientID = dataset.PatientName = "PATIENT-00000000"
    dataset.PatientBirthDate, dataset.PatientSex = "19500101", "O"
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = "20260101", "120000", "1", ""
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", 1, position + 1
    dataset.ReferringPhysicianName, dataset.Manufacturer = "", "Synthetic"
    dataset.ImagePositionPatient, dataset.ImageOrientationPatient = [0, 0, position], [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [0.7, 0.7], 1
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = 1, 0, "HU"
    dataset.WindowCenter, dataset.WindowWidth, dataset.ImageType = 40, 400, ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Rows = dataset.Columns = size
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    if full:
        _describe(dataset)
    dataset.PixelData = pixels.tobytes()
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _describe(dataset: pydicom.Dataset) -> None:
    """What a CT says beside what is needed: texts, numbers, sequences, private elements of its maker."""
    for tag, vr in [(entry, DicomDictionary[entry][0]) for entry in sorted(DicomDictionary)]:
        group = tag >> 16
        if len(dataset) >= FULL_ELEMENTS:
            break
        if group in (0x0008, 0x0010, 0x0018) and tag not in dataset and vr in _FILLING and tag & 0xFFFF > 0x0010:
            dataset.add_new(tag, vr, _FILLING[vr])
    dataset.SliceLocation = "-77777.7"
    code = pydicom.Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-D4000", "SRT", "Abdomen"
    dataset.ProcedureCodeSequence = [code]
    source = pydicom.Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = CTImageStorage, uid(9, 0, 0)
    dataset.ReferencedImageSequence = [source, source]
    block = dataset.private_block(0x0009, "BENCH MAKER 1.0", create=True)
    for number in range(8):
        block.add_new(number, "LO", f"private {number}")


_FILLING = {
    "LO": "As the scanner says", "SH": "SCANNER1", "DS": "0.75", "IS": "120", "CS": "HELICAL", "TM": "101530.25",
    "DA": "20251231", "PN": "Somebody^Else", "UI": "1.2.826.0.1.3680043.10.1500.77", "FD": 0.5, "US": 3,
}  # fmt: skip
