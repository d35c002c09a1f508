"""Small archives with many kinds of attributes, stored by the real store operation."""

import io
import random
from collections.abc import AsyncIterator
from typing import Any

from pydicom import Dataset, dcmread
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import UID, ExplicitVRLittleEndian, generate_uid

from annotomy.actor import Actor
from annotomy.archive.store import Incoming, store_instances
from annotomy.projects.attributes import ATTRIBUTES
from annotomy.services import Services
from tests.access.oracle import Instance

STUDY_VALUES: dict[str, list[str]] = {
    "PatientID": ["P-1", "P-2", "p-1"],
    "PatientName": ["Hong^Gildong=洪^吉洞=홍^길동", "Smith^John", ""],
    "PatientSex": ["F", "M", ""],
    "PatientAge": ["045Y", "006M", "003D", ""],
    "StudyDate": ["20240115", "20241231", "20250501", ""],
    "StudyDescription": ["Chest CT", "chest  ct  follow-up", "Kopf"],
    "AccessionNumber": ["A1", "A2"],
}
SERIES_VALUES: dict[str, list[str]] = {
    "Modality": ["CT", "MR", "SR", "SEG"],
    "BodyPartExamined": ["CHEST", "Chest", "HEAD", ""],
    "SeriesDescription": ["Lung 1.0", "localizer", "ß-Straße"],
    "SeriesNumber": ["1", "2", "-3", "100"],
    "InstitutionName": ["Seoul 병원", "Berlin", ""],
    "StationName": ["CT01", "MR01"],
}
INSTANCE_VALUES: dict[str, list[str]] = {
    "SOPClassUID": ["1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.4", "1.2.840.10008.5.1.4.1.1.88.11"],
    "ImageType": ["ORIGINAL\\PRIMARY\\AXIAL", "DERIVED\\SECONDARY", ""],
    "BurnedInAnnotation": ["YES", "NO", ""],
}
UNREADABLE: dict[str, dict[str, bytes]] = {
    "StudyDate": {"?date": b"yesterday "},
    "StudyDescription": {"?longer than is read": b"A" * (17 << 10)},
    "SeriesNumber": {"?number": b"9x8x7x"},
    "StationName": {"?letters": b"CT\xff\xfe\xfd1"},
    "BurnedInAnnotation": {"?longer than is kept": b"Y" * 500},
    "ImageType": {"?one of several": b"ORIGINAL\\" + b"P" * 501},
}
"""Values that nobody can compare: a name for each, and its bytes in the file."""
VALUES = STUDY_VALUES | SERIES_VALUES | INSTANCE_VALUES


def picture(attributes: dict[str, str]) -> bytes:
    """A DICOM file of four pixels."""
    dataset = dcmread(io.BytesIO(headers_only(attributes)))
    dataset.Rows = dataset.Columns = 2
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.add_new(0x7FE00010, "OB", bytes(4))
    dataset.ICCProfile = bytes(2000)  # over the length up to which metadata holds a value
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def headers_only(attributes: dict[str, str]) -> bytes:
    """A DICOM file without pixels."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = UID(attributes["SOPClassUID"])
    dataset.file_meta.MediaStorageSOPInstanceUID = UID(attributes["SOPInstanceUID"])
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword, value in attributes.items():
        if value.startswith("?"):
            tag, raw = Tag(keyword), UNREADABLE[keyword][value]
            dataset[tag] = RawDataElement(tag, dictionary_VR(tag), len(raw), raw, 0, False, True)
            continue
        setattr(dataset, keyword, value.split("\\") if keyword == "ImageType" and value else value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def invent(chance: random.Random, studies: int) -> list[dict[str, str]]:
    """The attributes of each instance; those of a study and a series agree, as they do in real files."""
    made: list[dict[str, str]] = []
    for _ in range(studies):
        of_study = _chosen(chance, STUDY_VALUES)
        of_study["StudyInstanceUID"] = generate_uid()
        for _ in range(chance.randint(1, 3)):
            of_series = _chosen(chance, SERIES_VALUES)
            of_series["SeriesInstanceUID"] = generate_uid()
            for _ in range(chance.randint(1, 3)):
                of_instance = _chosen(chance, INSTANCE_VALUES)
                of_instance["SOPInstanceUID"] = generate_uid()
                made.append(of_study | of_series | of_instance)
    return made


def _chosen(chance: random.Random, values: dict[str, list[str]]) -> dict[str, str]:
    return {name: chance.choice([*some, *UNREADABLE.get(name, ())]) for name, some in values.items()}


def as_objects(made: list[dict[str, str]]) -> list[Instance]:
    return [
        Instance(
            one["StudyInstanceUID"],
            one["SeriesInstanceUID"],
            one["SOPInstanceUID"],
            {
                name: value.split("\\")
                for name, value in one.items()
                if name in ATTRIBUTES and not value.startswith("?")
            },
            frozenset(name for name, value in one.items() if value.startswith("?")),
        )
        for one in made
    ]


async def store(services: Services, actor: Actor, made: list[dict[str, str]], project_id: Any = None) -> None:
    async def files() -> AsyncIterator[Incoming]:
        for one in made:
            yield Incoming(one["SOPInstanceUID"], data=headers_only(one))

    outcomes = await store_instances(services, actor, project_id, files())
    assert {outcome.state for outcome in outcomes} == {"stored"}, outcomes


def invent_one(**attributes: str) -> dict[str, str]:
    """One instance of a study and a series of its own, but for what is given."""
    uids = {name: generate_uid() for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")}
    return {name: values[0] for name, values in VALUES.items()} | uids | attributes
