"""From a file to what the archive keeps of it: columns for queries, the header's bytes, the table of frames.

Runs in a thread: it reads headers only and never decodes pixels. The bytes are untrusted: `dicom/scanner.py` checks
their structure, and nothing here reads what it has not passed.
"""

import mmap
import unicodedata
import zlib
from dataclasses import dataclass
from datetime import date, datetime, time
from pathlib import Path
from typing import Any

import zstandard
from blake3 import blake3

from annotomy.archive.errors import NotDicom
from annotomy.dicom.attributes import Attributes, tags_of
from annotomy.dicom.frames import Dimensions, frame_table
from annotomy.dicom.scanner import Scan, ScanError, is_uid, scan
from annotomy.projects.attributes import ATTRIBUTES, Table, of_table, rule_values

EARLIEST = datetime(1800, 1, 1)
"""Where studies without a date stand in time order."""

# What QIDO-RS answers at each level (PS3.18 10.6.3.3), beside the counts that are computed.
STUDY_KEYWORDS = (
    "SpecificCharacterSet", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "TimezoneOffsetFromUTC",
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientAge", "StudyInstanceUID", "StudyID", "StudyDescription",
)  # fmt: skip
SERIES_KEYWORDS = (
    "SpecificCharacterSet", "Modality", "SeriesDate", "SeriesTime", "Manufacturer", "ManufacturerModelName", "StationName",
    "SeriesDescription", "BodyPartExamined", "PatientPosition", "ProtocolName", "Laterality", "SeriesInstanceUID", "SeriesNumber",
    "FrameOfReferenceUID", "PerformedProcedureStepStartDate", "PerformedProcedureStepStartTime",
)  # fmt: skip
INSTANCE_KEYWORDS = (
    "SpecificCharacterSet", "SOPClassUID", "SOPInstanceUID", "InstanceNumber", "Rows", "Columns", "BitsAllocated",
    "NumberOfFrames", "ContentDate", "ContentTime", "ImageType", "ContentLabel",
)  # fmt: skip


_PIXEL_KEYWORDS = ("SamplesPerPixel", "PhotometricInterpretation")
_WANTED = tags_of({*STUDY_KEYWORDS, *SERIES_KEYWORDS, *INSTANCE_KEYWORDS, *_PIXEL_KEYWORDS, *ATTRIBUTES})
_EXTENDED_OFFSET_TABLE = 0x7FE00001
_WANTED_TAGS = frozenset(tag for tag, _ in _WANTED.values()) | {_EXTENDED_OFFSET_TABLE}


@dataclass(frozen=True, slots=True)
class ParsedInstance:
    study_instance_uid: str
    series_instance_uid: str
    sop_instance_uid: str
    sop_class_uid: str
    study_columns: dict[str, Any]
    series_columns: dict[str, Any]
    instance_columns: dict[str, Any]
    header: bytes
    """zstd of the file's bytes before its pixel data element (the whole file when it has none).

    Of a deflated file it is the meta information and the data set before the pixel data, deflated again: a file itself.
    """
    frames: bytes
    """Little-endian uint64 pairs (offset, length) in the file; an encapsulated frame includes its item headers.

    Empty without pixel data, and for deflated and big-endian files, whose frames are reached by reading the whole file.
    """


def parse_instance(source: bytes | Path) -> ParsedInstance:
    """Raises NotDicom, whose text names what is wrong and never a value of the file."""
    try:
        if isinstance(source, bytes):
            return _parse(scan(source, _WANTED_TAGS), source)
        with source.open("rb") as file:
            if source.stat().st_size == 0:
                raise NotDicom("The file is empty.")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
                return _parse(scan(mapped, _WANTED_TAGS), mapped)
    except ScanError as error:
        raise NotDicom(str(error)) from error


def _parse(found: Scan, file: bytes | mmap.mmap) -> ParsedInstance:
    attributes = Attributes(found, _WANTED)
    uids = {
        name: _uid(found, name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    }
    frames, number_of_frames = b"", 0
    if found.pixels is not None:
        dimensions = _dimensions(found, attributes)
        frames, number_of_frames = frame_table(found, dimensions), dimensions.frames
    return ParsedInstance(
        study_instance_uid=uids["StudyInstanceUID"],
        series_instance_uid=uids["SeriesInstanceUID"],
        sop_instance_uid=uids["SOPInstanceUID"],
        sop_class_uid=uids["SOPClassUID"],
        study_columns=_study_columns(attributes, uids["StudyInstanceUID"]),
        series_columns={
            "series_instance_uid": uids["SeriesInstanceUID"],
            "modality": attributes.text("Modality", 16),
            "series_number": attributes.whole("SeriesNumber"),
            "series_description": attributes.text("SeriesDescription", 128),
            "body_part_examined": attributes.text("BodyPartExamined", 64),
            "attributes": attributes.json(SERIES_KEYWORDS),
            "rule_values": _rule_values(attributes, "series"),
        },
        instance_columns={
            "sop_instance_uid": uids["SOPInstanceUID"],
            "sop_class_uid": uids["SOPClassUID"],
            "transfer_syntax_uid": found.transfer_syntax_uid,
            "instance_number": attributes.whole("InstanceNumber"),
            "image_rows": attributes.whole("Rows"),
            "image_columns": attributes.whole("Columns"),
            "number_of_frames": number_of_frames,
            "data_set_digest": _data_set_digest(found, file),
            "attributes": attributes.json(INSTANCE_KEYWORDS),
            "rule_values": _rule_values(attributes, "instance"),
        },
        header=zstandard.ZstdCompressor(level=3).compress(_header(found, file)),
        frames=frames,
    )


def _study_columns(attributes: Attributes, study_instance_uid: str) -> dict[str, Any]:
    patient_name = attributes.text("PatientName", 400)
    study_date, study_time = _date(attributes, "StudyDate"), attributes.text("StudyTime", 16)
    return {
        "study_instance_uid": study_instance_uid,
        "patient_id": attributes.text("PatientID", 128),
        "patient_name": patient_name,
        "name_key": name_key(patient_name),
        "patient_birth_date": _date(attributes, "PatientBirthDate"),
        "patient_sex": attributes.text("PatientSex", 16),
        "study_date": study_date,
        "study_time": study_time,
        "study_at": _moment(study_date, study_time),
        "study_description": attributes.text("StudyDescription", 128),
        "accession_number": attributes.text("AccessionNumber", 64),
        "attributes": attributes.json(STUDY_KEYWORDS),
        "rule_values": _rule_values(attributes, "study"),
    }


def _rule_values(attributes: Attributes, table: Table) -> dict[str, list[str]]:
    return rule_values(table, ((name, attributes.texts(name)) for name in of_table(table) if not name.endswith("UID")))


def name_key(name: str) -> str:
    """What names are compared by: without case, composed (NFC), without the empty components at a group's end."""
    folded = unicodedata.normalize("NFC", name).lower()
    return "=".join(group.rstrip("^ ") for group in folded.split("=")).rstrip("=")


def _data_set_digest(found: Scan, file: bytes | mmap.mmap) -> bytes:
    """Two files with the same data set differ by who wrote their meta information; they are the same instance."""
    hasher = blake3(found.transfer_syntax_uid.encode())
    with memoryview(file) as whole, whole[found.meta_end :] as data_set:
        hasher.update(data_set)
    return hasher.digest()


def _header(found: Scan, file: bytes | mmap.mmap) -> bytes:
    if not found.deflated:
        return file[: found.header_end]
    deflater = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS)
    plain = found.data[found.meta_end : found.header_end]
    return file[: found.meta_end] + deflater.compress(plain) + deflater.flush()


def _dimensions(found: Scan, attributes: Attributes) -> Dimensions:
    numbers = {name: attributes.whole(name) for name in ("Rows", "Columns", "BitsAllocated")}
    for name, number in numbers.items():
        if number is None:
            raise NotDicom(f"The image has pixel data, but {name} is missing or is no number.")
    frames = attributes.whole("NumberOfFrames")
    if frames is None and attributes.text("NumberOfFrames", 16):
        raise NotDicom("NumberOfFrames is no number.")
    samples = attributes.whole("SamplesPerPixel")
    return Dimensions(
        rows=numbers["Rows"] or 0,
        columns=numbers["Columns"] or 0,
        frames=frames or 1,  # some writers say 0 of a single frame
        samples=1 if samples is None else samples,
        bits=numbers["BitsAllocated"] or 0,
        half_chroma=attributes.text("PhotometricInterpretation", 16) == "YBR_FULL_422",
        extended_offsets=found.value(_EXTENDED_OFFSET_TABLE) or b"",
    )


def _uid(found: Scan, keyword: str) -> str:
    """As the file says it, without padding: what is cleaned would be another UID than readers of the file see."""
    value = found.value(_WANTED[keyword][0]) or b""
    if not is_uid(value):
        raise NotDicom(f"{keyword} is missing or is no UID.")
    return value.rstrip(b"\0 ").decode("ascii")


def _date(attributes: Attributes, keyword: str) -> date | None:
    text = attributes.text(keyword, 10).replace(".", "")
    if not (len(text) == 8 and text.isascii() and text.isdigit()):
        return None
    try:
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    except ValueError:
        return None


def _moment(day: date | None, clock: str) -> datetime:
    if day is None:
        return EARLIEST
    digits = clock.split(".")[0].ljust(6, "0")[:6]
    try:
        return datetime.combine(day, time(int(digits[:2]), int(digits[2:4]), int(digits[4:])))
    except ValueError:
        return datetime.combine(day, datetime.min.time())
