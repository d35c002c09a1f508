"""A DICOM file out of DICOM JSON and bulk data that came beside it (PS3.18 10.5.1, F.2). Pure; called in a thread.

What is assembled is checked like any other file afterwards: here only its parts are put together.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID, ExplicitVRLittleEndian

from annotomy.dicom.part10 import data_set_start, file_head
from annotomy.dicom.unreadable import UNREADABLE

_PIXELS: Final = "7FE00010"


class AssembleError(ValueError):
    """The parts make no DICOM file. The text names tags and never a value."""


@dataclass(frozen=True, slots=True)
class Bulk:
    """What came under one location, in order: frames where the pixels are compressed, else pieces of one value."""

    pieces: list[bytes]
    transfer_syntax_uid: str = ExplicitVRLittleEndian


def assemble(item: dict[str, Any], bulk: Mapping[str, Bulk]) -> bytes:
    """Raises AssembleError."""
    given = {tag: value for tag, value in item.items() if not tag.startswith(("0000", "0002")) and tag != "00083002"}
    pixels = given.get(_PIXELS, {})
    held = bulk.get(str(pixels.get("BulkDataURI", ""))) if isinstance(pixels, dict) else None
    syntax = UID(held.transfer_syntax_uid if held is not None else ExplicitVRLittleEndian)
    if not syntax.is_transfer_syntax or syntax.is_deflated or not syntax.is_little_endian:
        raise AssembleError("Bulk data of this transfer syntax is not put together here.")
    compressed = syntax.is_compressed

    def value_of(_group: str, _vr: str, uri: str) -> bytes:
        if uri not in bulk:
            raise AssembleError("A BulkDataURI has no part of this request behind it.")
        one = bulk[uri]
        return encapsulate(one.pieces) if UID(one.transfer_syntax_uid).is_compressed else b"".join(one.pieces)

    try:
        dataset = Dataset.from_json(given, value_of)
        dataset.SpecificCharacterSet = "ISO_IR 192"  # JSON and XML came as UTF-8
        if "PixelData" in dataset:
            dataset["PixelData"].is_undefined_length = compressed
            dataset["PixelData"].VR = "OB" if compressed else dataset["PixelData"].VR
        dataset.file_meta = FileMetaDataset()
        buffer = io.BytesIO()
        implicit = bool(syntax.is_implicit_VR)
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(buffer, implicit_vr=implicit, little_endian=True, enforce_file_format=True)
        head = file_head(
            sop_class_uid=str(dataset.SOPClassUID),
            sop_instance_uid=str(dataset.SOPInstanceUID),
            transfer_syntax_uid=str(syntax),
        )
    except AssembleError:
        raise
    except UNREADABLE as error:
        raise AssembleError(f"The metadata makes no DICOM file ({type(error).__name__}).") from error
    written = buffer.getvalue()
    return head + written[data_set_start(written) :]
