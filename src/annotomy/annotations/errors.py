"""What can be wrong with an annotation, or with a change of one."""

from annotomy.errors import Conflict, NotFound, PreconditionFailed, Problem


class InvalidAnnotation(Problem):
    """A member of the annotation is not valid; `field` names it and the detail says what is expected of it."""

    slug = "invalid-annotation"
    title = "The annotation is not valid"
    status = 422


class InvalidGeometry(InvalidAnnotation):
    """The geometry is not of its type's form: the number of points, of coordinates, a value that is no finite number.

    `point_index` names the first wrong point, from 0.
    """

    slug = "invalid-geometry"
    title = "The geometry is not valid"


class OutsideFrame(InvalidGeometry):
    """A point lies outside of the frame that the annotation is bound to, or off its plane.

    `point_index` names the point, from 0. Pixel points run from (0, 0), the top-left corner of the first pixel, to
    (columns, rows). Bind the annotation to the right SOP instance and frame.
    """

    slug = "outside-frame"
    title = "The geometry leaves its frame"


class LabelNotInSet(InvalidAnnotation):
    """The project has a label set, and the annotation's label is not in it. `GET /labels?project_id=` lists the set."""

    slug = "label-not-in-set"
    title = "The label is not in the project's set"


class FieldsRequired(InvalidAnnotation):
    """The label asks for members or attributes that are missing; `missing` lists them. Drafts may lack them, submitted work may not."""

    slug = "fields-required"
    title = "The label asks for more"


class AnnotationDeleted(NotFound):
    """The annotation was deleted. Its versions can be read, and `POST /annotations/{id}/restore` brings any of them back."""

    slug = "annotation-deleted"
    title = "The annotation was deleted"


class EditConflict(PreconditionFailed):
    """Someone changed the annotation since the version that `If-Match` names; nothing was written.

    `current` is what stands now, `base` what the edit started from, `yours` what it asked for. `conflicts` names the
    members that both changed. Where there are none, `mergeable` is true and `merged` is the merge patch that applies your
    changes to `current_version`: send it with that version in `If-Match`.
    """

    slug = "edit-conflict"


class StateConflict(Conflict):
    """The annotation's state does not allow this, for instance editing what is approved. Reopen it first."""

    slug = "state-conflict"
    title = "The state does not allow this"


class OwnReview(Conflict):
    """The project does not let people approve or reject what they drew themselves. Ask another reviewer."""

    slug = "own-review"
    title = "Not one's own work"


class BatchRefused(Problem):
    """An atomic batch in which at least one item failed; nothing was written. `results` tells each item's problem."""

    slug = "batch-refused"
    title = "Nothing of the batch was written"
    status = 422


class NothingToExport(NotFound):
    """No annotation that the format can carry is in what was asked for."""

    slug = "nothing-to-export"
    title = "Nothing to export"


class UnreadableReport(Problem):
    """The DICOM object is no structured report of a kind that is read here (TID 1500, Enhanced or Comprehensive SR)."""

    slug = "unreadable-report"
    title = "Not a readable measurement report"
    status = 422
