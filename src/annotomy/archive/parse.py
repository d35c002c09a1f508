"""From a file to what the archive keeps of it: columns for queries, the header's bytes, the table of frames.

Runs in a thread: it reads headers only and never decodes pixels.
"""

import io
import re
import struct
import warnings
import zlib
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import zstandard
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.encaps import parse_basic_offsets, parse_fragments
from pydicom.errors import InvalidDicomError
from pydicom.multival import MultiValue
from pydicom.tag import Tag
from pydicom.uid import UID

from annotomy.archive.errors import NotDicom
from annotomy.projects.attributes import Table, of_table, rule_values

EARLIEST = datetime(1800, 1, 1)
"""Where studies without a date stand in time order."""
_DEFLATED = b"1.2.840.10008.1.2.1.99"
_UID = re.compile(r"^[0-9.]{1,64}$")
_PIXEL_TAGS = {Tag(0x7FE00008), Tag(0x7FE00009), Tag(0x7FE00010)}
MAX_PIXELS = 1 << 34
"""Samples in one instance: rows x columns x frames x samples. A whole-slide level stays below; a lie does not."""

MAX_INFLATED_BYTES = 256 << 20
"""A deflated file is read in memory; images of this size are not sent deflated."""

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
    """zstd of the file's bytes before its pixel data element (the whole file when it has none)."""
    frames: bytes
    """Little-endian uint64 pairs (offset, length) in the file; an encapsulated frame includes its item headers.

    Empty without pixel data, and for deflated and big-endian files, whose frames are reached by reading the whole file.
    """


def parse_instance(source: bytes | Path) -> ParsedInstance:
    """Raises NotDicom, whose text names what is wrong and never a value of the file."""
    file = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
    with file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # odd values are kept as they are; the ingest report is the place to tell
        try:
            _refuse_inflation_bomb(file)
            dataset = dcmread(file, stop_before_pixels=True, force=False)
            return _parse(dataset, file)
        except InvalidDicomError as error:
            raise NotDicom("The file has no DICOM preamble and file meta information.") from error
        except (EOFError, struct.error, OSError, ValueError, TypeError, AttributeError, NotImplementedError, RecursionError,
                KeyError, IndexError, OverflowError, zlib.error) as error:  # fmt: skip
            raise NotDicom(f"The file cannot be read as DICOM ({type(error).__name__}).") from error


def _parse(dataset: FileDataset, file: Any) -> ParsedInstance:
    syntax = UID(str(getattr(dataset.file_meta, "TransferSyntaxUID", "")))
    if not syntax:
        raise NotDicom("The file names no transfer syntax.")
    uids = {
        name: _uid(dataset, name) for name in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
    }
    pixel_start = 0 if syntax.is_deflated else file.tell()
    frames = b"" if syntax.is_deflated else _frame_table(dataset, file, encapsulated=syntax.is_compressed)
    file.seek(0)
    header = file.read(pixel_start or None)
    study_date = _date(dataset, "StudyDate")
    patient_name = _text(dataset, "PatientName", 400)
    return ParsedInstance(
        study_instance_uid=uids["StudyInstanceUID"],
        series_instance_uid=uids["SeriesInstanceUID"],
        sop_instance_uid=uids["SOPInstanceUID"],
        sop_class_uid=uids["SOPClassUID"],
        study_columns={
            "study_instance_uid": uids["StudyInstanceUID"],
            "patient_id": _text(dataset, "PatientID", 128),
            "patient_name": patient_name,
            "name_key": patient_name.lower(),
            "patient_birth_date": _date(dataset, "PatientBirthDate"),
            "patient_sex": _text(dataset, "PatientSex", 16),
            "study_date": study_date,
            "study_time": _text(dataset, "StudyTime", 16),
            "study_at": _moment(study_date, _text(dataset, "StudyTime", 16)),
            "study_description": _text(dataset, "StudyDescription", 128),
            "accession_number": _text(dataset, "AccessionNumber", 64),
            "attributes": _json(dataset, STUDY_KEYWORDS),
            "rule_values": _rule_values(dataset, "study"),
        },
        series_columns={
            "series_instance_uid": uids["SeriesInstanceUID"],
            "modality": _text(dataset, "Modality", 16),
            "series_number": _whole(dataset, "SeriesNumber"),
            "series_description": _text(dataset, "SeriesDescription", 128),
            "body_part_examined": _text(dataset, "BodyPartExamined", 64),
            "attributes": _json(dataset, SERIES_KEYWORDS),
            "rule_values": _rule_values(dataset, "series"),
        },
        instance_columns={
            "sop_instance_uid": uids["SOPInstanceUID"],
            "sop_class_uid": uids["SOPClassUID"],
            "transfer_syntax_uid": str(syntax),
            "instance_number": _whole(dataset, "InstanceNumber"),
            "image_rows": _whole(dataset, "Rows"),
            "image_columns": _whole(dataset, "Columns"),
            "number_of_frames": _number_of_frames(dataset, syntax, frames),
            "attributes": _json(dataset, INSTANCE_KEYWORDS),
            "rule_values": _rule_values(dataset, "instance"),
        },
        header=zstandard.ZstdCompressor(level=3).compress(header),
        frames=frames,
    )


def _rule_values(dataset: Dataset, table: Table) -> dict[str, list[str]]:
    return rule_values(table, ((name, _texts(dataset, name)) for name in of_table(table) if not name.endswith("UID")))


def _texts(dataset: Dataset, keyword: str) -> list[str]:
    value: Any = dataset.get(keyword)
    if value is None:
        return []
    return [str(one) for one in value] if isinstance(value, (list, tuple, MultiValue)) else [str(value)]


def _refuse_inflation_bomb(file: Any) -> None:
    """pydicom inflates a deflated file whole; here it is tried piecewise against the limit first."""
    head = file.read(4096)
    if _DEFLATED in head and len(head) >= 144:
        # (0002,0000) is the first element after the preamble (PS3.10 7.1) and tells how long the meta information is.
        file.seek(144 + struct.unpack("<I", head[140:144])[0])
        inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
        pending = file.read()
        while pending and not inflater.eof:
            inflated += len(inflater.decompress(pending, 1 << 20))
            pending = inflater.unconsumed_tail
            if inflated > MAX_INFLATED_BYTES:
                raise NotDicom("The deflated file grows beyond the limit.")
    file.seek(0)


def _number_of_frames(dataset: Dataset, syntax: UID, frames: bytes) -> int:
    if frames:
        return len(frames) // 16
    whole = syntax.is_deflated or not syntax.is_little_endian
    return int(dataset.get("NumberOfFrames", 1) or 1) if whole and "BitsAllocated" in dataset else 0


def _frame_table(dataset: Dataset, file: Any, *, encapsulated: bool) -> bytes:
    """`file` stands at the pixel data element, or at the end of the file when there is none."""
    start = file.tell()
    head = file.read(12)
    size = file.seek(0, io.SEEK_END)
    if len(head) < 8:
        return b""
    tag, explicit = struct.unpack("<HH", head[:4]), not dataset.is_implicit_VR
    if Tag(tag) not in _PIXEL_TAGS:
        return b""
    length = struct.unpack("<I", head[8:12] if explicit else head[4:8])[0]
    value_at = start + (12 if explicit else 8)
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    rows, columns = int(dataset.Rows), int(dataset.Columns)
    if not (count >= 1 and rows * columns * count * int(dataset.get("SamplesPerPixel", 1)) <= MAX_PIXELS):
        raise NotDicom("The image dimensions are out of bounds.")
    if encapsulated:
        return _encapsulated_frames(file, value_at, size, count, dataset)
    if value_at + length > size:
        raise NotDicom("The pixel data is cut off.")
    bits = int(dataset.BitsAllocated)
    samples = rows * columns * int(dataset.get("SamplesPerPixel", 1))
    if str(dataset.get("PhotometricInterpretation", "")) == "YBR_FULL_422":
        samples = samples * 2 // 3
    if bits == 1:  # frames of one bit may begin inside a byte: told by the whole element (PS3.5 8.1.1)
        if samples % 8:
            return struct.pack("<QQ", value_at, length) * count
        frame_bytes = samples // 8
    else:
        frame_bytes = samples * ((bits + 7) // 8)
    if frame_bytes * count > length:
        raise NotDicom("The pixel data is shorter than its dimensions say.")
    return b"".join(struct.pack("<QQ", value_at + n * frame_bytes, frame_bytes) for n in range(count))


def _encapsulated_frames(file: Any, value_at: int, size: int, count: int, dataset: Dataset) -> bytes:
    file.seek(value_at)
    basic = parse_basic_offsets(file)
    first = file.tell()
    _, fragments = parse_fragments(file)
    if not fragments:
        raise NotDicom("The pixel data has no fragments.")
    last = fragments[-1]
    file.seek(last + 4)
    end = last + 8 + struct.unpack("<I", file.read(4))[0]
    if end > size:
        raise NotDicom("The pixel data is cut off.")
    if count == 1:
        starts = [fragments[0]]
    elif len(basic) == count:
        starts = [first + offset for offset in basic]
    elif len(fragments) == count:
        starts = list(fragments)
    elif "ExtendedOffsetTable" in dataset:
        offsets = struct.unpack(f"<{count}Q", dataset.ExtendedOffsetTable[: 8 * count])
        starts = [first + offset for offset in offsets]
    else:
        raise NotDicom("The frames of the compressed pixel data cannot be told apart.")
    if any(not first <= s < end for s in starts) or sorted(starts) != starts:
        raise NotDicom("The table of frames points outside the pixel data.")
    stops = [*starts[1:], end]
    return b"".join(struct.pack("<QQ", start, stop - start) for start, stop in zip(starts, stops, strict=True))


def _uid(dataset: Dataset, keyword: str) -> str:
    text = _text(dataset, keyword, 100)
    if not _UID.match(text):
        raise NotDicom(f"{keyword} is missing or is no UID.")
    return text


def _text(dataset: Dataset, keyword: str, limit: int) -> str:
    value = dataset.get(keyword)
    return "" if value is None else str(value).replace("\0", "").strip()[:limit]


def _whole(dataset: Dataset, keyword: str) -> int | None:
    try:
        value = int(str(dataset.get(keyword)).split(".")[0])
    except ValueError:
        return None
    return value if -(1 << 31) <= value < 1 << 31 else None


def _date(dataset: Dataset, keyword: str) -> date | None:
    text = _text(dataset, keyword, 10).replace(".", "")
    try:
        return datetime.strptime(text, "%Y%m%d").date()
    except ValueError:
        return None


def _moment(day: date | None, clock: str) -> datetime:
    if day is None:
        return EARLIEST
    digits = clock.split(".")[0].ljust(6, "0")[:6]
    try:
        return datetime.combine(day, datetime.strptime(digits, "%H%M%S").time())
    except ValueError:
        return datetime.combine(day, datetime.min.time())


def _json(dataset: Dataset, keywords: tuple[str, ...]) -> dict[str, Any]:
    """DICOM JSON (PS3.18 F.2) of these attributes, where they are present."""
    chosen = Dataset()
    for keyword in keywords:
        if keyword in dataset:
            chosen[keyword] = dataset[keyword]
    return chosen.to_json_dict(suppress_invalid_tags=True)
