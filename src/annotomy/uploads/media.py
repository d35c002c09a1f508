"""DICOM media (PS3.10 8, PS3.3 F): a DICOMDIR says which files belong to it, and what of them is not in the upload.

Writers and copying change the case of names, end them with a dot or with the `;1` of ISO 9660: none of it counts.
"""

import io
import re
from typing import Any, Final

from pydicom import dcmread

from annotomy.archive.errors import NotDicom
from annotomy.dicom.scanner import ScanError, scan
from annotomy.dicom.unreadable import UNREADABLE

_CLASS: Final = re.compile(rb"\x02\0\x02\0UI\x14\x001\.2\.840\.10008\.1\.3\.10", re.DOTALL)
"""The element (0002,0002), Media Storage SOP Class UID, of the Media Storage Directory."""
MAX_DIRECTORY_BYTES: Final = 64 << 20
"""One DICOMDIR: 100,000 images take about 40 MiB."""
MAX_RECORDS: Final = 200_000


def is_media_directory(head: bytes) -> bool:
    """By its media storage SOP class, since anything may be called DICOMDIR."""
    return head[128:132] == b"DICM" and _CLASS.search(head[132:560]) is not None


def missing_files(directory_name: str, data: bytes, present: set[str]) -> list[str]:
    """The files that the directory names and that are not among `present`. Raises NotDicom."""
    folder = directory_name.rpartition("/")[0]
    there = {comparable(name) for name in present}
    named = [f"{folder}/{name}" if folder else name for name in _named(data)]
    return [name for name in dict.fromkeys(named) if comparable(name) not in there]


def comparable(name: str) -> str:
    parts = [re.sub(r"\.?(;\d+)?$", "", part) for part in name.replace("\\", "/").upper().split("/")]
    return "/".join(part for part in parts if part and part != ".")


def _named(data: bytes) -> list[str]:
    if len(data) > MAX_DIRECTORY_BYTES:
        raise NotDicom("The media directory is larger than is read.")
    try:
        scan(data, frozenset())
    except ScanError as error:
        raise NotDicom(str(error)) from error
    try:
        records: Any = dcmread(io.BytesIO(data)).get("DirectoryRecordSequence") or []
        if len(records) > MAX_RECORDS:
            raise NotDicom("The media directory has more records than are read.")
        files = [record.get("ReferencedFileID") for record in records]
        return ["/".join([file] if isinstance(file, str) else map(str, file)) for file in files if file]
    except UNREADABLE as error:
        raise NotDicom("The media directory cannot be read.") from error
