"""C-FIND as SCP (PS3.4 C.4.1): the same operation as QIDO-RS, with what the peer's principal may see.

Answers hold the keys that were asked for: with a value where the archive has one, empty where it has none.
"""

import asyncio
from typing import Any

from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset

from annotomy.archive.order import Position
from annotomy.archive.query import MATCHABLE, Level, Query, QueryResult, query, query_patients
from annotomy.dimse.audited import note_query
from annotomy.dimse.command import response_to
from annotomy.dimse.dialogue import Dialogue, Message
from annotomy.dimse.identifiers import UNIQUE_KEYS, UTF_8, Identifier, read_identifier, write_data_set
from annotomy.dimse.peers import Peer
from annotomy.dimse.status import Status
from annotomy.errors import Forbidden
from annotomy.ops.audit_queue import AuditQueue
from annotomy.services import Services

PAGE_ROWS = 500
"""Answers that are encoded and sent between two looks at C-CANCEL."""
MAX_ANSWERS = 50_000
"""Of one query: nobody reads more, and each page costs more than the one before it."""
_LEVELS: dict[str, Level] = {"STUDY": "study", "SERIES": "series", "IMAGE": "instance"}
_UNMATCHED_OPTIONAL = frozenset(
    {"SpecificCharacterSet", "RetrieveAETitle", "InstanceAvailability", "TimezoneOffsetFromUTC"}
)


async def find(dialogue: Dialogue, services: Services, peer: Peer, message: Message, audit: AuditQueue) -> None:
    if not peer.may_query:
        raise Forbidden("This AE may not query.")
    identifier = read_identifier(message)
    await note_query(audit, peer, identifier)
    # A key with a value that is not matched narrows nothing: the asker is told (PS3.4 C.4.1.1.4).
    unmatched = any(
        value and keyword not in MATCHABLE and keyword not in _UNMATCHED_OPTIONAL
        for keyword, value in identifier.keys.items()
    )
    pending = Status.PENDING_UNSUPPORTED_KEYS if unmatched else Status.PENDING
    our_title = services.settings.dimse.ae_title
    offset, final = 0, Status.SUCCESS
    after: Position | None = None
    while True:
        found = await _page(services, peer, identifier, offset, after)
        rows, after = found.rows, found.next
        answers = await asyncio.to_thread(_encode, rows, identifier, our_title, message.context.transfer_syntax)
        for answer in answers:
            if message.cancelled:
                break
            await dialogue.send(message.context.id, response_to(message.command, pending, data_set=True), answer)
        offset += len(rows)
        if message.cancelled:
            final = Status.CANCEL
            break
        if len(rows) < PAGE_ROWS or (after is None and identifier.level != "PATIENT"):
            break
        if offset >= MAX_ANSWERS:  # the status says that this is not all
            final = Status.OUT_OF_RESOURCES
            break
    await dialogue.send(message.context.id, response_to(message.command, final))


async def _page(
    services: Services, peer: Peer, identifier: Identifier, offset: int, after: Position | None
) -> QueryResult:
    async with services.db.read(peer.actor) as tx:
        if identifier.level == "PATIENT":
            return await query_patients(tx, identifier.keys, limit=PAGE_ROWS, offset=offset)
        return await query(tx, Query(_LEVELS[identifier.level], identifier.keys, limit=PAGE_ROWS, after=after))


def _encode(rows: list[dict[str, Any]], identifier: Identifier, our_title: str, syntax: str) -> list[bytes]:
    return [write_data_set(_answer(row, identifier, our_title), syntax) for row in rows]


def _answer(row: dict[str, Any], identifier: Identifier, our_title: str) -> Dataset:
    answer, plain = Dataset(), True
    for element in identifier.data_set:
        held = row.get(f"{int(element.tag):08X}")
        if element.VR == "SQ" or held is None or not held.get("Value"):
            answer.add_new(element.tag, element.VR, [] if element.VR == "SQ" else None)
            continue
        values = [_value(held["vr"], value) for value in held["Value"]]
        plain = plain and all(not isinstance(value, str) or value.isascii() for value in values)
        answer.add_new(element.tag, held["vr"], values[0] if len(values) == 1 else values)
    unique = UNIQUE_KEYS[identifier.level]
    if unique not in answer:  # the key that says which entity the answer is (PS3.4 C.4.1.1.3.2)
        tag = tag_for_keyword(unique)
        assert tag is not None
        held = row.get(f"{tag:08X}", {})
        answer.add_new(tag, dictionary_VR(tag), (held.get("Value") or [""])[0])
    answer.QueryRetrieveLevel = identifier.level
    answer.RetrieveAETitle = our_title
    if "SpecificCharacterSet" in answer:
        del answer.SpecificCharacterSet
    if not plain:
        answer.SpecificCharacterSet = UTF_8
    return answer


def _value(vr: str, value: Any) -> Any:
    if vr == "PN":  # DICOM JSON has the component groups apart (PS3.18 F.2.2)
        groups = [str(value.get(group, "")) for group in ("Alphabetic", "Ideographic", "Phonetic")]
        return "=".join(groups).rstrip("=")
    return str(value) if vr in ("DS", "IS") else value
