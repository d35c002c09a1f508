"""Which presentation contexts and roles we accept (PS3.8 7.1.1, PS3.7 D.3), as pure functions.

Storage: every class under the standard's storage root, retired ones included, and private ones that scanners send; every
transfer syntax of data sets that the archive keeps. A context that offers several gets an uncompressed one, which a
sender can always make, else the first that it names.
"""

from dataclasses import dataclass
from functools import cache

from pydicom.uid import UID

from annotomy.dicom.part10 import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from annotomy.dimse.pdu import (
    MAX_DATA_BYTES,
    AssociateAccept,
    AssociateRequest,
    ContextResult,
    Role,
    UserInformation,
)

VERIFICATION = "1.2.840.10008.1.1"
PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE, PATIENT_ROOT_GET = (f"1.2.840.10008.5.1.4.1.2.1.{n}" for n in (1, 2, 3))
STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET = (f"1.2.840.10008.5.1.4.1.2.2.{n}" for n in (1, 2, 3))
STORAGE_COMMITMENT = "1.2.840.10008.1.20.1"
STORAGE_ROOT = "1.2.840.10008.5.1.4.1.1."
PRIVATE_STORAGE = frozenset(
    {
        "1.3.12.2.1107.5.9.1",  # Siemens CSA non-image
        "1.3.12.2.1107.5.99.3.10", "1.3.12.2.1107.5.99.3.11",  # Siemens AX frame sets
        "1.2.840.113619.4.26", "1.2.840.113619.4.27", "1.2.840.113619.4.30",  # GE 3D model, eNTEGRA, RT plan
        "1.3.46.670589.2.3.1.1", "1.3.46.670589.2.4.1.1", "1.3.46.670589.2.5.1.1",  # Philips surfaces and X-ray
        "1.3.46.670589.5.0.1", "1.3.46.670589.5.0.1.1", "1.3.46.670589.5.0.2", "1.3.46.670589.5.0.2.1",
        "1.3.46.670589.5.0.3", "1.3.46.670589.5.0.3.1", "1.3.46.670589.5.0.4", "1.3.46.670589.5.0.8",
        "1.3.46.670589.5.0.10", "1.3.46.670589.5.0.11", "1.3.46.670589.5.0.12", "1.3.46.670589.5.0.13",
        "1.3.46.670589.5.0.14", "1.3.46.670589.11.0.0.12.1", "1.3.46.670589.11.0.0.12.2",
        "1.3.46.670589.11.0.0.12.4",  # Philips MR spectra, series data, examination cards
        "1.2.392.200036.9116.7.8.1.1.1", "1.2.392.200036.9125.1.1.2", "1.2.392.200036.9125.1.1.4",  # Toshiba, Fuji
    }
)  # fmt: skip
IMPLICIT, EXPLICIT, BIG_ENDIAN = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2"
PREFERRED = (EXPLICIT, IMPLICIT, BIG_ENDIAN)
NO_DATA_SET_SYNTAXES = ("1.2.840.10008.1.2.6.",)
"""Syntaxes of other things than data sets (MIME, XML)."""
MAX_WINDOW = 16
"""Operations of one association that may be in hand at once, whatever was negotiated."""


@dataclass(frozen=True, slots=True)
class AcceptedContext:
    id: int
    abstract_syntax: str
    transfer_syntax: str
    requestor_is_scp: bool = False
    """The requestor takes C-STORE sub-operations on it (C-GET)."""


@cache
def is_storage(abstract_syntax: str) -> bool:
    return abstract_syntax.startswith(STORAGE_ROOT) or abstract_syntax in PRIVATE_STORAGE


@cache
def is_kept_syntax(transfer_syntax: str) -> bool:
    """Registered transfer syntaxes of data sets, retired ones included."""
    uid = UID(transfer_syntax)
    return uid.type == "Transfer Syntax" and not uid.startswith(NO_DATA_SET_SYNTAXES)


def is_service(abstract_syntax: str) -> bool:
    return abstract_syntax in SERVICES


SERVICES = frozenset(
    {VERIFICATION, STORAGE_COMMITMENT, PATIENT_ROOT_FIND, PATIENT_ROOT_MOVE, PATIENT_ROOT_GET,
     STUDY_ROOT_FIND, STUDY_ROOT_MOVE, STUDY_ROOT_GET}
)  # fmt: skip


def choose_syntax(offered: tuple[str, ...], *, storage: bool) -> str | None:
    chosen = next((syntax for syntax in PREFERRED if syntax in offered), None)
    if chosen is None and storage:
        chosen = next((syntax for syntax in offered if is_kept_syntax(syntax)), None)
    return chosen


def negotiate(request: AssociateRequest) -> tuple[AssociateAccept, dict[int, AcceptedContext]]:
    """Every proposed context gets a result; the accepted ones come back by id."""
    proposed_roles = {role.sop_class_uid: role for role in request.user.roles}
    # Asked for nothing, a requestor is SCU. SCP of storage classes is what C-GET needs, and SCP of storage commitment who brings
    # us the result of what we asked for; other services we only provide.
    roles = {
        uid: Role(uid, role.scu, role.scp and (is_storage(uid) or uid == STORAGE_COMMITMENT))
        for uid, role in proposed_roles.items()
        if is_storage(uid) or is_service(uid)
    }
    results, accepted = list[ContextResult](), dict[int, AcceptedContext]()
    for context in request.contexts:
        storage = is_storage(context.abstract_syntax)
        if not storage and not is_service(context.abstract_syntax):
            results.append(ContextResult(context.id, ContextResult.ABSTRACT_SYNTAX))
            continue
        syntax = choose_syntax(context.transfer_syntaxes, storage=storage)
        if syntax is None or context.id in accepted or context.id % 2 == 0:
            results.append(ContextResult(context.id, ContextResult.TRANSFER_SYNTAXES))
            continue
        role = roles.get(context.abstract_syntax)
        accepted[context.id] = AcceptedContext(
            context.id, context.abstract_syntax, syntax, requestor_is_scp=role is not None and role.scp
        )
        results.append(ContextResult(context.id, ContextResult.ACCEPTED, syntax))
    window = request.user.window
    user = UserInformation(
        max_length=MAX_DATA_BYTES,
        implementation_class_uid=IMPLEMENTATION_CLASS_UID,
        implementation_version=IMPLEMENTATION_VERSION_NAME,
        window=None if window is None else (min(window[0] or MAX_WINDOW, MAX_WINDOW), 1),
        roles=tuple(roles.values()),
    )
    return AssociateAccept(request.called_ae_title, request.calling_ae_title, tuple(results), user), accepted
