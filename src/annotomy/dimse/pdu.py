"""Protocol data units of the DICOM upper layer: bytes to values and back (PS3.8 9.3, user information: PS3.7 D.3.3).

Pure. A PDU's length is judged from its six header bytes, before anything of it is kept: an association request has a
limit of its own, P-DATA may be as long as we announced, the others have a fixed length.
"""

import struct
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

APPLICATION_CONTEXT = "1.2.840.10008.3.1.1.1"
PROTOCOL_VERSION = 1
MAX_DATA_BYTES = 131_072
"""The P-DATA length that we announce and send at most: a CT slice in five PDUs, and little for each association."""
HEADER_SLACK_BYTES = 6
"""Some senders count the PDU header into the length that they may use."""
MAX_ASSOCIATE_BYTES = 512 << 10
"""128 presentation contexts with every transfer syntax that exists stay below a quarter of it."""
MAX_CONTEXTS = 128
"""Odd context ids from 1 to 255 (PS3.8 9.3.2.2)."""

ASSOCIATE_RQ, ASSOCIATE_AC, ASSOCIATE_RJ, DATA, RELEASE_RQ, RELEASE_RP, ABORT = range(1, 8)
_FIXED_BYTES = 4
_LONGEST = {
    ASSOCIATE_RQ: MAX_ASSOCIATE_BYTES,
    ASSOCIATE_AC: MAX_ASSOCIATE_BYTES,
    ASSOCIATE_RJ: _FIXED_BYTES,
    DATA: MAX_DATA_BYTES + HEADER_SLACK_BYTES,
    RELEASE_RQ: _FIXED_BYTES,
    RELEASE_RP: _FIXED_BYTES,
    ABORT: _FIXED_BYTES,
}


class PduError(Exception):
    """The peer broke the protocol. `reason` is what our A-ABORT says (PS3.8 9.3.8)."""

    UNRECOGNIZED, UNEXPECTED, INVALID = 1, 2, 6

    def __init__(self, text: str, reason: int = INVALID) -> None:
        super().__init__(text)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class ProposedContext:
    id: int
    abstract_syntax: str
    transfer_syntaxes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ContextResult:
    ACCEPTED, USER_REJECTION, NO_REASON, ABSTRACT_SYNTAX, TRANSFER_SYNTAXES = range(5)

    id: int
    result: int
    transfer_syntax: str = ""


@dataclass(frozen=True, slots=True)
class Role:
    """SCP/SCU role selection for one SOP class (PS3.7 D.3.3.4); the roles are those of the requestor."""

    sop_class_uid: str
    scu: bool
    scp: bool


@dataclass(frozen=True, slots=True)
class UserInformation:
    max_length: int = 0
    """Longest P-DATA that the sender of this takes; 0: any."""
    implementation_class_uid: str = ""
    implementation_version: str = ""
    window: tuple[int, int] | None = None
    """Asynchronous operations that the requestor invokes and performs; 0: any number (PS3.7 D.3.3.3)."""
    roles: tuple[Role, ...] = ()


@dataclass(frozen=True, slots=True)
class AssociateRequest:
    called_ae_title: str
    calling_ae_title: str
    contexts: tuple[ProposedContext, ...]
    user: UserInformation = field(default_factory=UserInformation)
    application_context: str = APPLICATION_CONTEXT
    protocol_version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True)
class AssociateAccept:
    called_ae_title: str
    calling_ae_title: str
    contexts: tuple[ContextResult, ...]
    user: UserInformation = field(default_factory=UserInformation)


@dataclass(frozen=True, slots=True)
class AssociateReject:
    result: int
    source: int
    reason: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """A presentation data value: a piece of a command or of a data set (PS3.8 Annex E)."""

    context_id: int
    is_command: bool
    is_last: bool
    data: memoryview


@dataclass(frozen=True, slots=True)
class Data:
    fragments: tuple[Fragment, ...]


@dataclass(frozen=True, slots=True)
class ReleaseRequest: ...


@dataclass(frozen=True, slots=True)
class ReleaseReply: ...


@dataclass(frozen=True, slots=True)
class Abort:
    source: int
    reason: int


Pdu = AssociateRequest | AssociateAccept | AssociateReject | Data | ReleaseRequest | ReleaseReply | Abort


class PduDecoder:
    """Bytes in whatever pieces they come, whole PDUs out. Holds at most one PDU and one piece."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._start = 0  # what was taken of the first piece
        self._held = 0
        self._kind = 0
        self._needed = 6

    @property
    def in_pdu(self) -> bool:
        """Whether a PDU has begun and not ended."""
        return self._kind != 0 or self._held > 0

    def feed(self, data: bytes) -> Iterator[Pdu]:
        """Yields each PDU that `data` completes. Raises PduError; nothing may be fed after that."""
        if data:
            self._pieces.append(data)
            self._held += len(data)
        while self._held >= self._needed:
            block = self._take(self._needed)
            if self._kind == 0:
                self._kind, self._needed = _read_header(block)
            else:
                kind, self._kind, self._needed = self._kind, 0, 6
                yield decode(kind, block)

    def _take(self, count: int) -> bytes:
        if count == 0:
            return b""
        self._held -= count
        first = self._pieces[0]
        if len(first) - self._start >= count:
            block = first[self._start : self._start + count]
            self._start += count
            if self._start == len(first):
                self._pieces.popleft()
                self._start = 0
            return block
        parts: list[bytes | memoryview] = []
        while count:
            first = self._pieces[0]
            part = memoryview(first)[self._start : self._start + count]
            parts.append(part)
            count -= len(part)
            self._start += len(part)
            if self._start == len(first):
                self._pieces.popleft()
                self._start = 0
        return b"".join(parts)


def _read_header(block: bytes) -> tuple[int, int]:
    kind, _, length = struct.unpack(">BBI", block)
    longest = _LONGEST.get(kind)
    if longest is None:
        raise PduError(f"PDU type {kind} does not exist", PduError.UNRECOGNIZED)
    if length > longest or (longest == _FIXED_BYTES and length != longest):
        raise PduError(f"a PDU of type {kind} cannot have {length} bytes")
    return kind, length


def decode(kind: int, body: bytes) -> Pdu:
    """Raises PduError and nothing else."""
    try:
        match kind:
            case 1:
                return _decode_request(body)
            case 2:
                return _decode_accept(body)
            case 3:
                return AssociateReject(*struct.unpack(">xBBB", body))
            case 4:
                return _decode_data(body)
            case 5:
                return ReleaseRequest()
            case 6:
                return ReleaseReply()
            case _:
                return Abort(*struct.unpack(">xxBB", body))
    except (struct.error, IndexError, UnicodeDecodeError) as error:
        raise PduError("a PDU ends too early or holds what is no text") from error


def _decode_data(body: bytes) -> Data:
    view, at, fragments = memoryview(body), 0, list[Fragment]()
    while at < len(view):
        length, context_id, control = struct.unpack_from(">IBB", view, at)
        if length < 2 or at + 4 + length > len(view):
            raise PduError("a presentation data value reaches beyond its PDU")
        fragments.append(Fragment(context_id, bool(control & 1), bool(control & 2), view[at + 6 : at + 4 + length]))
        at += 4 + length
    return Data(tuple(fragments))


def _items(body: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """Items and sub-items have one form: type, a reserved byte, length, value."""
    while at < len(body):
        kind, length = struct.unpack_from(">BxH", body, at)
        at += 4
        if at + length > len(body):
            raise PduError("an item reaches beyond its PDU")
        yield kind, body[at : at + length]
        at += length


def _text(value: bytes) -> str:
    return value.decode("ascii").strip("\0 ")


def _title(value: bytes) -> str:
    # Titles in national letters are sent against the standard; as Latin-1 they stay comparable.
    return value.decode("latin-1").strip("\0 ")


def _associate_head(body: bytes) -> tuple[int, str, str]:
    if len(body) < 68:
        raise PduError("an association PDU has no fixed part")
    return struct.unpack_from(">H", body)[0], _title(body[4:20]), _title(body[20:36])


def _decode_request(body: bytes) -> AssociateRequest:
    version, called, calling = _associate_head(body)
    contexts, user, application = list[ProposedContext](), UserInformation(), ""
    for kind, value in _items(body, 68):
        if kind == 0x10:
            application = _text(value)
        elif kind == 0x20:
            abstract, syntaxes = "", list[str]()
            for sub_kind, sub_value in _items(value, 4):
                if sub_kind == 0x30:
                    abstract = _text(sub_value)
                elif sub_kind == 0x40:
                    syntaxes.append(_text(sub_value))
            contexts.append(ProposedContext(value[0], abstract, tuple(syntaxes)))
            if len(contexts) > MAX_CONTEXTS:
                raise PduError("more presentation contexts than there are ids")
        elif kind == 0x50:
            user = _decode_user(value)
    return AssociateRequest(called, calling, tuple(contexts), user, application, version)


def _decode_accept(body: bytes) -> AssociateAccept:
    _, called, calling = _associate_head(body)
    contexts, user = list[ContextResult](), UserInformation()
    for kind, value in _items(body, 68):
        if kind == 0x21:
            syntax = next((_text(sub) for sub_kind, sub in _items(value, 4) if sub_kind == 0x40), "")
            contexts.append(ContextResult(value[0], value[2], syntax))
        elif kind == 0x50:
            user = _decode_user(value)
    return AssociateAccept(called, calling, tuple(contexts), user)


def _decode_user(body: bytes) -> UserInformation:
    max_length, class_uid, version, window, roles = 0, "", "", None, list[Role]()
    for kind, value in _items(body, 0):
        if kind == 0x51:
            max_length = struct.unpack(">I", value)[0]
        elif kind == 0x52:
            class_uid = _text(value)
        elif kind == 0x53:
            window = struct.unpack(">HH", value)
        elif kind == 0x54:
            length = struct.unpack_from(">H", value)[0]
            scu, scp = struct.unpack_from(">BB", value, 2 + length)
            roles.append(Role(_text(value[2 : 2 + length]), scu == 1, scp == 1))
        elif kind == 0x55:
            version = _title(value)
    return UserInformation(max_length, class_uid, version, window, tuple(roles))


def encode(pdu: AssociateRequest | AssociateAccept | AssociateReject | ReleaseRequest | ReleaseReply | Abort) -> bytes:
    match pdu:
        case AssociateRequest():
            contexts = [
                _item(0x20, struct.pack(">Bxxx", one.id), _item(0x30, one.abstract_syntax.encode()),
                      *(_item(0x40, syntax.encode()) for syntax in one.transfer_syntaxes))
                for one in pdu.contexts
            ]  # fmt: skip
            return _encode_associate(ASSOCIATE_RQ, pdu, contexts)
        case AssociateAccept():
            contexts = [
                _item(0x21, struct.pack(">BxBx", one.id, one.result), _item(0x40, one.transfer_syntax.encode()))
                for one in pdu.contexts
            ]
            return _encode_associate(ASSOCIATE_AC, pdu, contexts)
        case AssociateReject():
            return struct.pack(">BxIxBBB", ASSOCIATE_RJ, 4, pdu.result, pdu.source, pdu.reason)
        case ReleaseRequest():
            return struct.pack(">BxII", RELEASE_RQ, 4, 0)
        case ReleaseReply():
            return struct.pack(">BxII", RELEASE_RP, 4, 0)
        case Abort():
            return struct.pack(">BxIxxBB", ABORT, 4, pdu.source, pdu.reason)


def data_head(context_id: int, length: int, *, is_command: bool, is_last: bool) -> bytes:
    """What stands before `length` bytes of a message that are sent as a P-DATA PDU of their own."""
    return struct.pack(">BxIIBB", DATA, length + 6, length + 2, context_id, is_command | is_last << 1)


def _encode_associate(kind: int, pdu: AssociateRequest | AssociateAccept, contexts: list[bytes]) -> bytes:
    titles = _padded(pdu.called_ae_title) + _padded(pdu.calling_ae_title)
    body = b"".join(
        (
            struct.pack(">HH", PROTOCOL_VERSION, 0), titles, b"\0" * 32,
            _item(0x10, APPLICATION_CONTEXT.encode()), *contexts, _encode_user(pdu.user),
        )
    )  # fmt: skip
    return struct.pack(">BxI", kind, len(body)) + body


def _encode_user(user: UserInformation) -> bytes:
    parts = [_item(0x51, struct.pack(">I", user.max_length)), _item(0x52, user.implementation_class_uid.encode())]
    if user.window is not None:
        parts.append(_item(0x53, struct.pack(">HH", *user.window)))
    for role in user.roles:
        name = role.sop_class_uid.encode()
        parts.append(_item(0x54, struct.pack(">H", len(name)), name, struct.pack(">BB", role.scu, role.scp)))
    if user.implementation_version:
        parts.append(_item(0x55, user.implementation_version.encode("latin-1")))
    return _item(0x50, *parts)


def _item(kind: int, *parts: bytes) -> bytes:
    value = b"".join(parts)
    return struct.pack(">BxH", kind, len(value)) + value


def _padded(title: str) -> bytes:
    return title.encode("latin-1")[:16].ljust(16)
