"""The file of a sealed segment: gzip of JSON lines that anyone can open - a head, the records in their order, the seal.

The seal is signed (Ed25519) over the segment's place in the chain and the SHA-256 of the record lines: with the public key
alone one sees that nothing in the file changed; with the audit key also that each record stands in the hash chain.
"""

import gzip
import hashlib
import hmac
import zlib
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from annotomy.audit import Record

ChainHash = Callable[[int, Record, bytes], bytes]
FORMAT = "annotomy-audit-segment/1"
MAX_LINE_BYTES = 1 << 20
"""A record has about 1 KB; what a file from elsewhere holds in one line is not read beyond this."""


class SealedLine(msgspec.Struct, frozen=True):
    seq: int
    hash: bytes
    record: Record


class Seal(msgspec.Struct, frozen=True, kw_only=True):
    """What is signed of a segment."""

    number: int
    month: str
    first_seq: int
    last_seq: int
    records: int
    first_at: datetime
    last_at: datetime
    previous_hash: bytes
    last_hash: bytes
    content_sha256: bytes
    keep_until: datetime

    def message(self) -> bytes:
        return b"annotomy audit segment" + msgspec.json.encode(self, order="deterministic")


class Head(msgspec.Struct, frozen=True):
    format: str
    number: int
    previous_hash: bytes
    public_key: bytes


class SignedSeal(msgspec.Struct, frozen=True):
    seal: Seal
    signature: bytes


class SegmentVerdict(msgspec.Struct, frozen=True, omit_defaults=True):
    valid: bool
    seal: Seal | None = None
    first_bad: int | None = None
    problem: str | None = None
    """not-a-segment, forged-seal, missing, altered or truncated."""
    chained: bool = False
    """The hash of each record was computed anew with the audit key."""


def line_bytes(line: SealedLine) -> bytes:
    return msgspec.json.encode(line) + b"\n"


def is_signed(seal: Seal, signature: bytes, public_key: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, seal.message())
    except (InvalidSignature, ValueError):
        return False
    return True


def verify_file(path: Path, public_key: bytes, chain_hash: ChainHash | None = None) -> SegmentVerdict:
    """Reads the file once, a line at a time. Without `chain_hash` the hashes count as far as the seal covers their lines."""
    try:
        with gzip.open(path) as file:
            return _verify(file, public_key, chain_hash)
    except (OSError, EOFError, zlib.error, msgspec.MsgspecError):
        return SegmentVerdict(valid=False, problem="not-a-segment")


def _verify(file: gzip.GzipFile, public_key: bytes, chain_hash: ChainHash | None) -> SegmentVerdict:
    head = msgspec.json.decode(file.readline(MAX_LINE_BYTES), type=Head)
    if head.format != FORMAT:
        return SegmentVerdict(valid=False, problem="not-a-segment")
    digest, previous = hashlib.sha256(), head.previous_hash
    first: int | None = None
    last: int | None = None
    bad: tuple[int, str] | None = None
    signed: SignedSeal | None = None
    while line := file.readline(MAX_LINE_BYTES):
        if line.startswith(b'{"seal":'):
            signed = msgspec.json.decode(line, type=SignedSeal)
            break
        digest.update(line)
        one = msgspec.json.decode(line, type=SealedLine)
        first = one.seq if first is None else first
        if bad is None and last is not None and one.seq != last + 1:
            bad = (last + 1, "missing")
        elif (
            bad is None and chain_hash and not hmac.compare_digest(one.hash, chain_hash(one.seq, one.record, previous))
        ):
            bad = (one.seq, "altered")
        last, previous = one.seq, one.hash
    if signed is None:
        return SegmentVerdict(valid=False, first_bad=(last or 0) + 1, problem="truncated")
    seal = signed.seal
    if not is_signed(seal, signed.signature, public_key):
        return SegmentVerdict(valid=False, seal=seal, problem="forged-seal")
    whole = (seal.first_seq, seal.last_seq, seal.previous_hash, seal.last_hash, seal.content_sha256)
    if bad is None and whole != (first, last, head.previous_hash, previous, digest.digest()):
        # Something in the file is not what was sealed; only the audit key can tell where.
        bad = (seal.first_seq if first != seal.first_seq else 0, "altered")
    if bad is not None:
        return SegmentVerdict(valid=False, seal=seal, first_bad=bad[0] or None, problem=bad[1])
    return SegmentVerdict(valid=True, seal=seal, chained=chain_hash is not None)
