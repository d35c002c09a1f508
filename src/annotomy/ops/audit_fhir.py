"""Records as FHIR R4 AuditEvent resources (http://hl7.org/fhir/R4/auditevent.html), one JSON line each."""

from typing import Any

import msgspec

from annotomy.ops import audit_codes as codes
from annotomy.ops.audit_codes import Code, details_of, is_address, meaning_of, outcome_of
from annotomy.ops.audit_search import AuditLine

_DCM = "http://dicom.nema.org/resources/ontology/DCM"
_HL7 = "http://terminology.hl7.org/CodeSystem"
_ACTION = "urn:annotomy:audit-action"
"""The code system of our own words for what was done."""


def event_of(line: AuditLine, site: str) -> bytes:
    """`site` names this installation."""
    meaning = meaning_of(line.action)
    outcome = outcome_of(line)
    subtypes = [] if meaning.type is None else [_coding(meaning.type)]
    event: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": str(line.seq),
        "type": _coding(meaning.event),
        "subtype": [*subtypes, {"system": _ACTION, "code": line.action}],
        "action": meaning.verb,
        "recorded": line.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "outcome": str(outcome),
        "agent": [_agent(line)],
        "source": {
            "observer": {"display": site},
            "type": [{"system": f"{_HL7}/security-source-type", "code": "4", "display": "Application Server"}],
        },
        "entity": _entities(line, meaning.event),
    }
    if outcome:
        event["outcomeDesc"] = line.outcome
    if line.reason:
        event["purposeOfEvent"] = [{"text": line.reason}]
    return msgspec.json.encode(event) + b"\n"


def _agent(line: AuditLine) -> dict[str, Any]:
    return {
        "who": {"identifier": _uuid(str(line.actor_id))},
        "altId": line.actor or str(line.actor_id),
        "requestor": True,
        "network": {"address": line.source or "unknown", "type": "2" if is_address(line.source) else "1"},
    }


def _entities(line: AuditLine, event: Code) -> list[dict[str, Any]]:
    details = [{"type": name, "valueString": value} for name, value in details_of(line)]
    kind = line.object["kind"]
    found: list[dict[str, Any]] = []
    if event == codes.AUDIT_LOG_USED:
        what = {"system": "urn:ietf:rfc:3986", "value": "urn:annotomy:audit"}
        found.append(_entity(what, "2", "13", "Security Audit Log"))
    elif not (kind == "study" and line.study_instance_uid):
        what = {"system": f"urn:annotomy:{kind or 'none'}", "value": line.object["id"] or "-"}
        found.append(_entity(what, "1" if kind == "user" else "2", "11" if kind == "user" else "4", kind or "none"))
    if line.study_instance_uid:
        what = {"system": "urn:dicom:uid", "value": f"urn:oid:{line.study_instance_uid}"}
        found.append(_entity(what, "2", "3", "study"))
    if line.patient:
        found.append(_entity({"system": "urn:annotomy:pseudonym", "value": line.patient}, "1", "1", "pseudonym"))
    found[0]["detail"] = details
    return found


def _entity(identifier: dict[str, str], type_code: str, role: str, name: str) -> dict[str, Any]:
    return {
        "what": {"identifier": identifier},
        "type": {"system": f"{_HL7}/audit-entity-type", "code": type_code},
        "role": {"system": f"{_HL7}/object-role", "code": role},
        "name": name,
    }


def _coding(code: Code) -> dict[str, str]:
    return {"system": _DCM, "code": code.value, "display": code.meaning}


def _uuid(value: str) -> dict[str, str]:
    return {"system": "urn:ietf:rfc:3986", "value": f"urn:uuid:{value}"}
