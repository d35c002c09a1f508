"""Records as DICOM audit messages (PS3.15 A.5): one AuditMessage for each, under a root of ours, since XML has one root.

Attribute names are those of the schema of A.5.1.1. What the schema has no place for stands in ParticipantObjectDetail.
"""

import base64
import re
from xml.sax.saxutils import escape, quoteattr

from annotomy.ops import audit_codes as codes
from annotomy.ops.audit_codes import Code, details_of, is_address, meaning_of, outcome_of
from annotomy.ops.audit_search import AuditLine

HEAD = b'<?xml version="1.0" encoding="UTF-8"?>\n<AuditMessages>\n'
TAIL = b"</AuditMessages>\n"
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""Characters that XML 1.0 cannot carry at all; they become the replacement character."""
_OBJECT_ROLES = {"user": 11, "group": 12, "job": 20, "role": 13, "rule": 13, "api_key": 13, "project": 13}
"""ParticipantObjectTypeCodeRole (A.5.1.2.2); others are resources."""
_MOVING = {codes.INSTANCES_TRANSFERRED, codes.QUERY, codes.EXPORT, codes.IMPORT}
"""Events between two sides: who asks, and this server."""


def message_of(line: AuditLine, site: str) -> bytes:
    """One element; `site` names this installation (AuditSourceID)."""
    meaning = meaning_of(line.action)
    outcome = outcome_of(line)
    moment = line.at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    event = [_coded("EventID", meaning.event)]
    if meaning.type is not None:
        event.append(_coded("EventTypeCode", meaning.type))
    if outcome:
        event.append(f"<EventOutcomeDescription>{_text(line.outcome)}</EventOutcomeDescription>")
    parts = [
        _element(
            "EventIdentification",
            {"EventActionCode": meaning.verb, "EventDateTime": moment, "EventOutcomeIndicator": str(outcome)},
            *event,
        ),
        *_participants(line, meaning.event, site),
        _element("AuditSourceIdentification", {"AuditSourceID": site}, '<AuditSourceTypeCode csd-code="4"/>'),
        *_objects(line, meaning.event),
    ]
    return f"<AuditMessage>{''.join(parts)}</AuditMessage>\n".encode()


def _participants(line: AuditLine, event: Code, site: str) -> list[str]:
    takes_in = line.action in ("study.stored", "upload.received")
    network = {
        "NetworkAccessPointID": line.source,
        "NetworkAccessPointTypeCode": "2" if is_address(line.source) else "1",
    }
    user = {"UserID": line.actor, "AlternativeUserID": str(line.actor_id), "UserIsRequestor": "true", **network}
    server = {"UserID": site, "UserIsRequestor": "false"}
    if event not in _MOVING:
        return [_element("ActiveParticipant", user)]
    theirs, ours = (codes.SOURCE, codes.DESTINATION) if takes_in else (codes.DESTINATION, codes.SOURCE)
    if event == codes.QUERY:  # the source is who asks (A.5.3.10)
        theirs, ours = ours, theirs
    return [
        _element("ActiveParticipant", user, _coded("RoleIDCode", theirs)),
        _element("ActiveParticipant", server, _coded("RoleIDCode", ours)),
    ]


def _objects(line: AuditLine, event: Code) -> list[str]:
    details = "".join(
        f"<ParticipantObjectDetail type={_quoted(name)} value={_quoted(base64.b64encode(value.encode()).decode())}/>"
        for name, value in details_of(line)
    )
    kind = line.object["kind"]
    if event == codes.AUDIT_LOG_USED:
        described = _object("urn:annotomy:audit", "2", 13, Code("12", "RFC-3881", "URI"), "Security Audit Log", details)
    elif kind == "study" and line.study_instance_uid:
        described = ""
    else:
        code = Code(kind or "none", "99ANNOTOMY", kind or "none")
        person = "1" if kind == "user" else "2"
        described = _object(line.object["id"] or "-", person, _OBJECT_ROLES.get(kind, 4), code, kind or "none", details)
    found = [described] if described else []
    if line.study_instance_uid:
        own = "" if described else details
        found.append(_object(line.study_instance_uid, "2", 3, codes.STUDY_INSTANCE_UID, "study", own))
    if line.patient:
        found.append(_object(line.patient, "1", 1, Code("2", "RFC-3881", "Patient Number"), "pseudonym", ""))
    return found


def _object(object_id: str, type_code: str, role: int, id_type: Code, name: str, details: str) -> str:
    return _element(
        "ParticipantObjectIdentification",
        {
            "ParticipantObjectID": object_id,
            "ParticipantObjectTypeCode": type_code,
            "ParticipantObjectTypeCodeRole": str(role),
        },
        _coded("ParticipantObjectIDTypeCode", id_type),
        f"<ParticipantObjectName>{_text(name)}</ParticipantObjectName>",
        details,
    )


def _coded(name: str, code: Code) -> str:
    return _element(name, {"csd-code": code.value, "codeSystemName": code.scheme, "originalText": code.meaning})


def _element(name: str, attributes: dict[str, str], *children: str) -> str:
    head = name + "".join(f" {key}={_quoted(value)}" for key, value in attributes.items())
    inside = "".join(children)
    return f"<{head}>{inside}</{name}>" if inside else f"<{head}/>"


def _quoted(value: str) -> str:
    return quoteattr(_NO_XML.sub("\ufffd", value))


def _text(value: str) -> str:
    return escape(_NO_XML.sub("\ufffd", value))
