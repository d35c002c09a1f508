"""What can go wrong with a segmentation."""

from annotomy.errors import Conflict, NotFound, Problem


class MaskMismatch(Problem):
    """The masks do not lie on the grid of the series: another shape, place, spacing or orientation.

    The detail names what differs. Nothing is resampled silently: resample the masks to the series, or name the series
    that they were made on.
    """

    slug = "mask-mismatch"
    title = "The masks do not fit the series"
    status = 422


class SegmentsInvalid(Problem):
    """The list of segments is not usable: a number twice or out of range, a colour or a code that is none.

    The detail names the segment. Numbers run from 1 to 65535, colours are #rrggbb, codes have value, scheme and meaning.
    """

    slug = "segments-invalid"
    title = "The segments are not valid"
    status = 422


class SegmentationState(Conflict):
    """The segmentation is in a state that does not allow this; reopen it as a draft first."""

    slug = "segmentation-state"
    title = "Not in this state"


class SegmentationDeleted(NotFound):
    """The segmentation was deleted. Its versions can be read, and `POST /segmentations/{id}/restore` brings any of them back."""

    slug = "segmentation-deleted"
    title = "The segmentation was deleted"
