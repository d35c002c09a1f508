"""What a record of ours is in the words of others: audit events of DICOM (PS3.15 A.5.3, PS3.16 CID 400, 401) for both exports."""

import ipaddress
from dataclasses import dataclass

import msgspec

from annotomy.ops.audit_search import AuditLine


@dataclass(frozen=True, slots=True)
class Code:
    value: str
    scheme: str
    meaning: str


def _dcm(value: int, meaning: str) -> Code:
    return Code(str(value), "DCM", meaning)


APPLICATION_ACTIVITY = _dcm(110100, "Application Activity")
AUDIT_LOG_USED = _dcm(110101, "Audit Log Used")
INSTANCES_ACCESSED = _dcm(110103, "DICOM Instances Accessed")
INSTANCES_TRANSFERRED = _dcm(110104, "DICOM Instances Transferred")
STUDY_DELETED = _dcm(110105, "DICOM Study Deleted")
EXPORT = _dcm(110106, "Export")
IMPORT = _dcm(110107, "Import")
PATIENT_RECORD = _dcm(110110, "Patient Record")
QUERY = _dcm(110112, "Query")
SECURITY_ALERT = _dcm(110113, "Security Alert")
USER_AUTHENTICATION = _dcm(110114, "User Authentication")

LOGIN = _dcm(110122, "Login")
LOGOUT = _dcm(110123, "Logout")
NETWORK_CONFIGURATION = _dcm(110128, "Network Configuration")
SECURITY_CONFIGURATION = _dcm(110129, "Security Configuration")
RESTRICTED_FUNCTION = _dcm(110132, "Use of Restricted Function")
OBJECT_SECURITY_CHANGED = _dcm(110135, "Object Security Attributes Changed")
ROLES_CHANGED = _dcm(110136, "Security Roles Changed")
USER_SECURITY_CHANGED = _dcm(110137, "User Security Attributes Changed")

DESTINATION = _dcm(110152, "Destination Role ID")
SOURCE = _dcm(110153, "Source Role ID")
STUDY_INSTANCE_UID = _dcm(110180, "Study Instance UID")


@dataclass(frozen=True, slots=True)
class Meaning:
    event: Code
    type: Code | None
    verb: str
    """C, R, U, D or E: create, read, update, delete, execute."""


_WHOLE: dict[str, tuple[Code, Code | None, str]] = {
    "study.stored": (INSTANCES_TRANSFERRED, None, "C"),
    "study.read": (INSTANCES_ACCESSED, None, "R"),
    "study.viewed": (INSTANCES_ACCESSED, None, "R"),
    "study.searched": (QUERY, None, "E"),
    "study.retrieved": (INSTANCES_TRANSFERRED, None, "R"),
    "study.deleted": (STUDY_DELETED, None, "D"),
    "upload.received": (IMPORT, None, "C"),
    "remote.queried": (QUERY, None, "E"),
    "remote.retrieved": (IMPORT, None, "C"),
    "remote.pushed": (EXPORT, None, "R"),
    "session.started": (USER_AUTHENTICATION, LOGIN, "E"),
    "session.proven": (USER_AUTHENTICATION, LOGIN, "E"),
    "session.ended": (USER_AUTHENTICATION, LOGOUT, "E"),
    "sessions.ended": (USER_AUTHENTICATION, LOGOUT, "E"),
    "security.sign_in_refused": (USER_AUTHENTICATION, LOGIN, "E"),
    "security.second_factor_refused": (USER_AUTHENTICATION, LOGIN, "E"),
}
_GROUPS: dict[str, tuple[Code, Code | None]] = {
    "audit": (AUDIT_LOG_USED, None),
    "audit_review": (AUDIT_LOG_USED, None),
    "annotation": (PATIENT_RECORD, None),
    "annotations": (PATIENT_RECORD, None),
    "segmentation": (PATIENT_RECORD, None),
    "prediction": (PATIENT_RECORD, None),
    "proposal": (PATIENT_RECORD, None),
    "study": (PATIENT_RECORD, None),
    "security": (SECURITY_ALERT, RESTRICTED_FUNCTION),
    "user": (SECURITY_ALERT, USER_SECURITY_CHANGED),
    "password": (SECURITY_ALERT, USER_SECURITY_CHANGED),
    "second_factor": (SECURITY_ALERT, USER_SECURITY_CHANGED),
    "recovery_codes": (SECURITY_ALERT, USER_SECURITY_CHANGED),
    "api_key": (SECURITY_ALERT, USER_SECURITY_CHANGED),
    "member": (SECURITY_ALERT, ROLES_CHANGED),
    "role": (SECURITY_ALERT, ROLES_CHANGED),
    "group": (SECURITY_ALERT, ROLES_CHANGED),
    "project_group": (SECURITY_ALERT, ROLES_CHANGED),
    "access_request": (SECURITY_ALERT, ROLES_CHANGED),
    "global_role": (SECURITY_ALERT, ROLES_CHANGED),
    "access": (SECURITY_ALERT, OBJECT_SECURITY_CHANGED),
    "rule": (SECURITY_ALERT, OBJECT_SECURITY_CHANGED),
    "share_link": (SECURITY_ALERT, OBJECT_SECURITY_CHANGED),
    "signing_key": (SECURITY_ALERT, SECURITY_CONFIGURATION),
    "dimse_peer": (SECURITY_ALERT, NETWORK_CONFIGURATION),
    "remote": (SECURITY_ALERT, NETWORK_CONFIGURATION),
}
"""By what stands before the dot of an action."""
_VERBS = {
    **dict.fromkeys(("created", "added", "issued", "made", "joined", "signed_up", "assigned", "imported"), "C"),
    **dict.fromkeys(("deleted", "removed", "revoked", "withdrawn", "left", "unassigned", "dropped", "expired"), "D"),
    **dict.fromkeys(("read", "viewed", "exported"), "R"),
    **dict.fromkeys(("changed", "set", "edited", "updated", "restored", "linked", "signed", "approved"), "U"),
}
_OUTCOMES = {"success": 0, "denied": 4, "not-found": 4, "failure": 8}
"""RFC 3881 5.1.4: 4 is a minor failure, 8 a serious one."""


def meaning_of(action: str) -> Meaning:
    """Actions that others have no word for are activities of the application."""
    if action in _WHOLE:
        return Meaning(*_WHOLE[action])
    group, _, verb = action.partition(".")
    if verb == "exported" and group != "audit":
        return Meaning(EXPORT, None, "R")
    event, kind = _GROUPS.get(group, (APPLICATION_ACTIVITY, None))
    return Meaning(event, kind, _VERBS.get(verb, "E"))


def outcome_of(line: AuditLine) -> int:
    return _OUTCOMES.get(line.outcome, 8)


def is_address(source: str) -> bool:
    try:
        ipaddress.ip_address(source)
    except ValueError:
        return False
    return True


def details_of(line: AuditLine) -> list[tuple[str, str]]:
    """What the forms of others have no place for, by name; nothing of a record is lost in an export."""
    found = [
        ("seq", str(line.seq)),
        ("action", line.action),
        ("actor_kind", line.actor_kind),
        ("session_id", str(line.session_id or "")),
        ("key_id", str(line.key_id or "")),
        ("project_id", str(line.project_id or "")),
        ("outcome", line.outcome),
        ("reason", line.reason),
        ("request_id", line.request_id),
        *((f"detail.{name}", value if isinstance(value, str) else _json(value)) for name, value in line.detail.items()),
    ]
    return [(name, value) for name, value in found if value]


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()
