"""Small DICOM files that tests make: an axial CT series with exact geometry."""

import io
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian, generate_uid

FRAME_OF_REFERENCE_UID = "1.2.826.0.1.3680043.8.498.1"


def ct_instance(
    *,
    study_instance_uid: str,
    series_instance_uid: str,
    number: int = 1,
    sop_instance_uid: str | None = None,
    patient_name: str = "Test^Anna",
    patient_id: str = "T-1",
    study_date: str = "20260102",
    size: int = 16,
    spacing_mm: float = 2.5,
) -> bytes:
    """One slice; its pixel values are `number` plus a ramp, so that slices differ."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.SOPClassUID = CTImageStorage
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = UID(sop_instance_uid or generate_uid())
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study_instance_uid, series_instance_uid
    dataset.FrameOfReferenceUID = FRAME_OF_REFERENCE_UID
    dataset.PatientName, dataset.PatientID, dataset.PatientSex, dataset.PatientBirthDate = (
        patient_name,
        patient_id,
        "F",
        "",
    )
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID, dataset.AccessionNumber = study_date, "101500", "1", "A1"
    dataset.ReferringPhysicianName, dataset.StudyDescription = "", "made by a test"
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", 1, number
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.ImagePositionPatient = [-10.0, -20.0, number * spacing_mm]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [0.75, 0.75], spacing_mm
    dataset.Rows = dataset.Columns = size
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleIntercept, dataset.RescaleSlope = "-1024", "1"
    pixels = (np.arange(size * size, dtype=np.int16) + number).reshape(size, size)
    dataset.PixelData = pixels.tobytes()
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def ct_series(slices: int = 4, **fields: str) -> list[bytes]:
    study = fields.pop("study_instance_uid", None) or generate_uid()
    series = fields.pop("series_instance_uid", None) or generate_uid()
    return [
        ct_instance(study_instance_uid=study, series_instance_uid=series, number=n, **fields)  # pyright: ignore[reportArgumentType]
        for n in range(1, slices + 1)
    ]


def edited(file: bytes, **values: Any) -> bytes:
    """The file with other values of some attributes, by keyword; None leaves one without a value."""
    dataset = dcmread(io.BytesIO(file))
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()
