"""Problems of the DICOM listener."""

from annotomy.errors import Conflict


class PeerExists(Conflict):
    """A DICOM peer of this AE title is known already; remove it first to describe it anew."""

    slug = "dimse-peer-exists"
    title = "The AE title is taken"
