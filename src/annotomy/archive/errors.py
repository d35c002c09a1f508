"""Why an instance is not kept - each with the Failure Reason (PS3.18 Annex I, PS3.4 B.2.3) that Store answers - or not sent."""

from typing import ClassVar

from annotomy.errors import Forbidden, Problem


class StoreRefused(Problem):
    """The instance was refused; the others of the same request go on."""

    slug = "instance-refused"
    title = "The instance was refused"
    status = 409
    failure_reason: ClassVar[int] = 0xC000
    """Cannot understand."""


class NotDicom(StoreRefused):
    """The bytes are not a DICOM file that can be read; the detail says what is wrong with them."""

    slug = "not-dicom"
    title = "Not a readable DICOM file"
    status = 400


class InstanceTooLarge(StoreRefused):
    """Larger than the instance limit of this installation (ANNOTOMY_INSTANCE_LIMIT_BYTES)."""

    slug = "instance-too-large"
    title = "The instance is too large"
    status = 413
    failure_reason = 0xA700


class DifferentContent(StoreRefused):
    """An instance of this SOP Instance UID is kept already, with other bytes. Nothing is overwritten: give it a new UID."""

    slug = "different-content"
    title = "Another content is kept under this UID"
    failure_reason = 0x0111


class AnotherInstance(StoreRefused):
    """The data set's SOP class or instance UID is not the one that the message around it names. The sender is at fault."""

    slug = "another-instance"
    title = "The data set is not what was announced"
    failure_reason = 0xA900


class ReasonRequired(Forbidden):
    """What leaves the system in bulk leaves it with a reason, which is recorded: say why, in `Annotomy-Reason` (percent-encoded
    UTF-8) or `?download_reason=` of the request. For a DICOM peer the purpose stands in its registration."""

    slug = "reason-required"
    title = "Say why"
