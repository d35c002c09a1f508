"""The hostile set: each case is made by code, and says what may become of it.

Classes: PS3.10 and codec advisories of other archives, and what parsers of this kind have died of.
"""

import gzip
import io
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import nibabel as nib
import numpy as np
import zstandard
from pydicom import dcmread
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from tests.support import codestreams
from tests.support.codestreams import image, with_fields
from tests.support.dicom_files import ct_instance, ct_series

SECRET = "Geheim^Patient"
"""The patient's name in every DICOM case: it must not appear in any problem."""
MIB = 1 << 20


@dataclass(frozen=True)
class Case:
    """`fate`: refused with a problem, stored (and then readable without a failure), or either."""

    name: str
    make: Callable[[], bytes]
    fate: Literal["refused", "stored", "either"]


def ct(**fields: Any) -> bytes:
    base = ct_instance(study_instance_uid=generate_uid(), series_instance_uid=generate_uid(), patient_name=SECRET)
    return with_fields(dcmread(io.BytesIO(base)), **fields) if fields else base


def before_pixels(piece: bytes, *, pixel_data: bytes | None = None) -> bytes:
    """A CT file with raw elements in front of its pixel data."""
    data = ct()
    at = data.index(b"\xe0\x7f\x10\x00OW")
    return data[:at] + piece + (data[at:] if pixel_data is None else pixel_data)


def element(group: int, number: int, vr: bytes, value: bytes, *, length: int | None = None) -> bytes:
    length = len(value) if length is None else length
    if vr in (b"SQ", b"UN", b"OB", b"OW", b"UT"):
        return struct.pack("<HH2sHI", group, number, vr, 0, length) + value
    return struct.pack("<HH2sH", group, number, vr, length) + value


ITEM, OPEN = b"\xfe\xff\x00\xe0", b"\xff\xff\xff\xff"
ITEM_END, SEQUENCE_END = b"\xfe\xff\x0d\xe0\0\0\0\0", b"\xfe\xff\xdd\xe0\0\0\0\0"


def nested(depth: int) -> bytes:
    opening = element(0x54, 0x16, b"SQ", b"", length=0xFFFFFFFF) + ITEM + OPEN
    return opening * depth + (ITEM_END + SEQUENCE_END) * depth


def nested_by_length(depth: int, vr: bytes = b"SQ") -> bytes:
    value = b""
    for _ in range(depth):
        value = element(0x54, 0x16, vr, ITEM + struct.pack("<I", len(value)) + value)
    return value


def deflated(plain_pixels: bytes) -> bytes:
    data = ct()
    dataset = dcmread(io.BytesIO(data))
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = plain_pixels
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    whole = buffer.getvalue()
    meta_end = 144 + struct.unpack("<I", whole[140:144])[0]
    meta = whole[:meta_end].replace(b"UI\x14\x001.2.840.10008.1.2.1\0", b"UI\x16\x001.2.840.10008.1.2.1.99")
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    return meta + packer.compress(whole[meta_end:]) + packer.flush()


def replaced(old: bytes, new: bytes, data: bytes | None = None) -> bytes:
    data = ct() if data is None else data
    assert old in data
    return data.replace(old, new, 1)


def rows(vr: bytes, value: bytes) -> bytes:
    at = b"\x28\x00\x10\x00US\x02\x00\x10\x00"
    return replaced(at, element(0x28, 0x10, vr, value))


def uid(keyword_tag: bytes, value: bytes) -> bytes:
    """One of the UIDs replaced by other bytes."""
    data = ct()
    at = data.rindex(keyword_tag + b"UI")
    length = struct.unpack("<H", data[at + 6 : at + 8])[0]
    value += b"\0" * (len(value) % 2)
    return data[:at] + keyword_tag + b"UI" + struct.pack("<H", len(value)) + value + data[at + 8 + length :]


def preamble(head: bytes) -> bytes:
    return head.ljust(128, b"\0")[:128] + ct()[128:]


def palette() -> bytes:
    """Indices up to 255 into a table of four colours."""
    dataset = dcmread(io.BytesIO(ct()))
    dataset.PhotometricInterpretation = "PALETTE COLOR"
    dataset.BitsAllocated = dataset.BitsStored = 8
    dataset.HighBit, dataset.PixelRepresentation = 7, 0
    dataset.PixelData = bytes(range(256))
    for number in range(3):
        dataset.add_new(0x00281101 + number, "US", [4, 60000, 16])
        dataset.add_new(0x00281201 + number, "OW", b"\1\2\3\4\5\6\7\x08")
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def pdf() -> bytes:
    return ct(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1", MIMETypeOfEncapsulatedDocument="application/pdf",
        EncapsulatedDocument=b"%PDF-1.7\n<script>alert(1)</script>" + b"\0" * 100_001,
    )  # fmt: skip


FILES: list[Case] = [
    Case("deflate bomb", lambda: deflated(b"\0" * (300 * MIB)), "refused"),
    Case("deflated file that grows by little", lambda: deflated(bytes(range(256)) * 2), "stored"),
    Case("300 nested sequences", lambda: before_pixels(nested(300)), "refused"),
    Case("3000 nested sequences by length", lambda: before_pixels(nested_by_length(3000)), "refused"),
    Case("300 nested sequences as UN", lambda: before_pixels(nested_by_length(300, b"UN")), "refused"),
    Case("30 nested sequences", lambda: before_pixels(nested(30)), "stored"),
    Case("small sequence that lies", lambda: before_pixels(element(0x54, 0x16, b"SQ", ITEM + b"\xf0\0\0\0abcd")), "stored"),
    Case("sequence never closed", lambda: before_pixels(element(0x54, 0x16, b"SQ", b"", length=0xFFFFFFFF)), "refused"),
    Case("text of undefined length", lambda: before_pixels(element(0x40, 0xA160, b"UT", b"x" * 50, length=0xFFFFFFFF)), "refused"),
    Case("length past the end", lambda: before_pixels(element(0x42, 0x11, b"OB", b"x", length=0xFFFFFFFE)), "refused"),
    Case("odd length", lambda: before_pixels(element(0x54, 0x400, b"SH", b"odd")), "stored"),
    Case("group length that lies", lambda: before_pixels(element(0x54, 0, b"UL", OPEN)), "stored"),
    Case("meta group length that lies", lambda: (data := ct())[:140] + OPEN + data[144:], "stored"),
    Case("250,000 elements", lambda: before_pixels(element(0x55, 0x10, b"LO", b"") * 250_000), "refused"),
    Case("value of 70 MiB", lambda: before_pixels(element(0x55, 0x1001, b"OB", bytes(70 * MIB))), "refused"),
    Case("unknown VR", lambda: before_pixels(element(0x54, 0x400, b"ZZ", b"ab")), "stored"),
    Case("preamble of a Windows program", lambda: preamble(b"MZ" + b"\x90" * 60), "stored"),
    Case("preamble of a Linux program", lambda: preamble(b"\x7fELF\x02\x01\x01"), "stored"),
    Case("preamble of a web page", lambda: preamble(b"<html><script>alert(1)</script>"), "stored"),
    Case("preamble of a ZIP", lambda: preamble(b"PK\x03\x04" + b"\0" * 30), "stored"),
    Case("UID that climbs", lambda: uid(b"\x08\0\x18\0", b"../../../../etc/passwd"), "refused"),
    Case("UID with NUL inside", lambda: uid(b"\x08\0\x18\0", b"1.2\x003.4"), "refused"),
    Case("UID of 10 kB", lambda: uid(b"\x20\0\x0d\0", b"1." * 5000), "refused"),
    Case("study UID that is empty", lambda: uid(b"\x20\0\x0d\0", b""), "refused"),
    Case("UID with a line feed", lambda: uid(b"\x20\0\x0e\0", b"1.2\n"), "refused"),
    Case("Rows as text", lambda: rows(b"LO", b"16"), "either"),
    Case("Rows as a long", lambda: rows(b"UL", b"\xff\xff\xff\x7f"), "refused"),
    Case("Rows as bytes", lambda: rows(b"OB", b"\xff" * 8), "refused"),
    Case("Rows as a sequence", lambda: rows(b"SQ", ITEM + b"\0\0\0\0"), "refused"),
    Case("Rows of two values", lambda: rows(b"US", b"\x10\0\x10\0"), "refused"),
    Case("pixel count overflow", lambda: ct(Rows=65535, Columns=65535, NumberOfFrames="2147483647"), "refused"),
    Case("2^31 frames of nothing", lambda: ct(Rows=0, NumberOfFrames="2147483647"), "refused"),
    Case("negative frames", lambda: ct(NumberOfFrames="-5"), "refused"),
    Case("0 bits allocated", lambda: ct(BitsAllocated=0), "refused"),
    Case("JPEG 2000 of 60000 x 60000", lambda: _huge(codestreams.JPEG2000, codestreams.jpeg2000(60000, 60000)), "stored"),
    Case("JPEG-LS of 60000 x 60000", lambda: _huge(codestreams.JPEG_LS, codestreams.jpeg_ls(60000, 60000)), "stored"),
    Case("HTJ2K of 60000 x 60000", lambda: _huge(codestreams.HTJ2K, codestreams.jpeg2000(60000, 60000, high_throughput=True)), "stored"),
    Case("JPEG of 60000 x 60000", lambda: _huge(codestreams.JPEG, codestreams.jpeg(60000, 60000)), "stored"),
    Case("JPEG 2000 of other dimensions", lambda: image(syntax=codestreams.JPEG2000, frames=[codestreams.jpeg2000(1 << 30, 9)]), "stored"),
    Case("RLE segment past the end", lambda: image(syntax=codestreams.RLE, frames=[codestreams.rle([b"\x81\0"], offsets=[1 << 31])]), "stored"),
    Case("RLE bomb", lambda: image(syntax=codestreams.RLE, frames=[codestreams.rle([codestreams.rle_zeros(200 * MIB)])]), "stored"),
    Case("compressed frames without fragments", lambda: before_pixels(b"", pixel_data=b"\xe0\x7f\x10\x00OB\0\0" + OPEN + SEQUENCE_END), "refused"),
    Case("palette index out of range", palette, "stored"),
    Case("encapsulated PDF with a script", pdf, "stored"),
    Case("character set that is none", lambda: replaced(b"ISO_IR 192", b"ISO_IR 999"), "stored"),
    Case("character set that lies", lambda: replaced(b"ISO_IR 192", b"ISO_IR 149", ct(PatientComments="\ud55c\uae00")), "stored"),
    Case("character set of control bytes", lambda: replaced(b"ISO_IR 192", b"\x1b$)C\0\x01\x02abc"), "refused"),
    Case("escape sequences without end", lambda: replaced(b"made by a test", b"\x1b$)C\x1b$B\x1b(J\xff\xfe\x80\x81"), "stored"),
    Case("NUL in a name", lambda: replaced(b"Geheim^Patient", b"Geheim\0Patient"), "stored"),
    Case("numbers that are none", lambda: replaced(b"-1024 ", b"1e9999", ct()) , "stored"),
    Case("description of 60 kB", lambda: ct(StudyDescription="x" * 60_000), "stored"),
    Case("script in a description", lambda: ct(StudyDescription="<img src=x onerror=alert(1)>\x1b[31m"), "stored"),
    Case("private tags without creator", lambda: before_pixels(element(0x55, 0x1001, b"LO", b"who ")), "stored"),
    Case("not DICOM at all", lambda: b"GIF89a" + bytes(500), "refused"),
    Case("nothing", lambda: b"", "refused"),
    Case("prefix and nothing else", lambda: bytes(128) + b"DICM", "refused"),
]  # fmt: skip


def _huge(syntax: str, frame: bytes) -> bytes:
    return image(syntax=syntax, frames=[frame], Rows=60000, Columns=60000)


def cut_everywhere() -> list[bytes]:
    """One file, cut at every 64th byte."""
    whole = ct()
    return [whole[:end] for end in range(0, len(whole), 64)]


# ------------------------------------------------------------------------------------------------------------- uploads
def zipped(members: dict[str, bytes], *, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def tarred(*entries: tuple[tarfile.TarInfo, bytes], mode: Any = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for entry, data in entries:
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def tar_entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, target
    return entry


def forged_zip() -> bytes:
    """The central directory tells a size of 10 bytes of a member that unpacks to 40 MiB."""
    data = bytearray(zipped({"a.dcm": bytes(40 * MIB)}))
    at = data.rindex(b"PK\x01\x02")
    data[at + 24 : at + 28] = struct.pack("<I", 10)
    return bytes(data)


def forged_directory() -> bytes:
    data = bytearray(zipped({"a.dcm": ct()}))
    at = data.rindex(b"PK\x05\x06")
    data[at + 12 : at + 16] = struct.pack("<I", 0xFFFFFFF0)
    return bytes(data)


def long_header_tar() -> bytes:
    """A long name of 300 MiB: read into memory by who believes it."""
    entry = tar_entry("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    entry.size = 300 * MIB
    return gzip.compress(entry.tobuf(tarfile.GNU_FORMAT) + bytes(300 * MIB), 9)


def sparse_tar() -> bytes:
    entry = tar_entry("sparse.dcm", tarfile.GNUTYPE_SPARSE)
    block = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    block[482] = 1
    block[148:156] = b"%06o\0 " % (sum(block[:148]) + 256 + sum(block[156:]))
    return gzip.compress(bytes(block) + b"\x01" * (50 * MIB), 9)


def nifti(shape: tuple[int, ...] = (4, 4, 3), *, affine: Any = None, **header: Any) -> bytes:
    made = nib.Nifti1Image(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), np.eye(4))
    if affine is not None:
        made.set_sform(np.asarray(affine, np.float64), code=1)
    data = bytearray(made.to_bytes())
    for field, value in header.items():
        at, form = {
            "dims": (40, "<8h"),
            "bits": (72, "<h"),
            "kind": (70, "<h"),
            "offset": (108, "<f"),
            "place": (280, "<12f"),
        }[field]
        data[at : at + struct.calcsize(form)] = struct.pack(form, *np.atleast_1d(value))
    return bytes(data)


def nifti2_of_2_31() -> bytes:
    made = bytearray(nib.Nifti2Image(np.zeros((2, 2, 2), np.int16), np.eye(4)).to_bytes())
    made[16:48] = struct.pack("<4q", 3, 1 << 31, 1 << 31, 1 << 31)
    return bytes(made)


SHEARED = [[1, 0.5, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]
FLAT = [[1, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]

UPLOADS: list[Case] = [
    Case("ZIP bomb", lambda: zipped({"a.dcm": bytes(400 * MIB)}), "refused"),
    Case("ZIP with a forged size", forged_zip, "refused"),
    Case("ZIP with a forged directory", forged_directory, "refused"),
    Case("ZIP in a ZIP", lambda: zipped({"inner.zip": zipped({"a.dcm": ct()})}), "refused"),
    Case("ZIP packed by LZMA", lambda: zipped({"a.dcm": ct()}, method=zipfile.ZIP_LZMA), "refused"),
    Case("ZIP whose names climb", lambda: zipped({"../../../../tmp/x.dcm": ct(), "/etc/x\x07\u202e.dcm": ct()}), "stored"),
    Case("ZIP cut off", lambda: zipped({"a.dcm": ct()})[:-30], "refused"),
    Case("tar with links and devices", lambda: tarred(
        (tar_entry("passwd", tarfile.SYMTYPE, "/etc/passwd"), b""), (tar_entry("zero", tarfile.CHRTYPE), b""),
        (tar_entry("hard", tarfile.LNKTYPE, "../../etc/shadow"), b""), (tar_entry("fifo", tarfile.FIFOTYPE), b""),
        (tar_entry("../../a.dcm"), ct()),
    ), "stored"),
    Case("tar with a long header", long_header_tar, "refused"),
    Case("tar with a sparse map", sparse_tar, "refused"),
    Case("tar bomb", lambda: tarred((tar_entry("a.dcm"), bytes(300 * MIB))), "refused"),
    Case("tar cut off", lambda: tarred((tar_entry("a.dcm"), ct()), mode="w")[:900], "refused"),
    Case("gzip of a DICOM file", lambda: gzip.compress(ct()), "refused"),
    Case("gzip bomb", lambda: gzip.compress(nifti() + bytes(400 * MIB), 9), "refused"),
    Case("gzip of gzip", lambda: gzip.compress(gzip.compress(bytes(MIB))), "refused"),
    Case("zstd bomb", lambda: zstandard.compress(bytes(300 * MIB)), "refused"),
    Case("NIfTI of 2^31 cubed", nifti2_of_2_31, "refused"),
    Case("NIfTI of 32767 cubed", lambda: nifti(dims=(3, 32767, 32767, 32767, 1, 1, 1, 1)), "refused"),
    Case("NIfTI of negative dimensions", lambda: nifti(dims=(3, -4, 4, 3, 1, 1, 1, 1)), "refused"),
    Case("NIfTI of no dimensions", lambda: nifti(dims=(0, 0, 0, 0, 0, 0, 0, 0)), "refused"),
    Case("NIfTI whose values are complex", lambda: nifti(kind=1792, bits=128), "refused"),
    Case("NIfTI of an unknown kind", lambda: nifti(kind=31000), "refused"),
    Case("NIfTI whose data lies elsewhere", lambda: nifti(offset=1e30), "refused"),
    Case("NIfTI cut off", lambda: nifti()[:-8], "refused"),
    Case("NIfTI sheared", lambda: nifti(affine=SHEARED), "refused"),
    Case("NIfTI without extent", lambda: nifti(affine=FLAT), "refused"),
    Case("NIfTI of no place", lambda: nifti(affine=np.eye(4), place=[float("nan")] * 12), "refused"),
    Case("executable", lambda: b"\x7fELF" + bytes(1000), "refused"),
]  # fmt: skip


def good() -> bytes:
    return ct_series(1)[0]
