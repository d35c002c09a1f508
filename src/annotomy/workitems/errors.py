"""Why a workitem stays as it is. Each carries the status code of PS3.4 CC.2 that a DICOM peer would be told."""

from typing import ClassVar

from annotomy.errors import Problem


class WorkitemRefused(Problem):
    """The state of the workitem does not allow this, or what it must say before is missing. `status_code` is PS3.4's."""

    slug = "workitem-refused"
    title = "The workitem does not allow this now"
    status = 409

    def __init__(self, detail: str, *, status_code: int) -> None:
        super().__init__(detail, status_code=f"{status_code:04X}")


class WorkitemNotYours(Problem):
    """The Transaction UID is missing or is not the one that claimed the workitem: somebody else works on it."""

    slug = "workitem-not-yours"
    title = "Not the Transaction UID of the claim"
    status = 400
    status_code: ClassVar[int] = 0xC301

    def __init__(self, detail: str) -> None:
        super().__init__(detail, status_code=f"{self.status_code:04X}")
