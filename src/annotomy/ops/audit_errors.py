"""Problems of the audit."""

from annotomy.errors import Conflict


class SegmentNotDue(Conflict):
    """The records of this segment may not be taken out of the database: it is not sealed, its file does not verify, or the
    time for which records are kept (`ANNOTOMY_AUDIT_RETENTION_YEARS`) has not passed."""

    slug = "segment-not-due"
    title = "The records must be kept"
