"""What can go wrong between a hint and its mask."""

from annotomy.errors import Problem


class WaitingForPlace(Problem):
    """All places for interactive work are taken; `position` says how many sessions are before yours. Ask again in some
    seconds: places come free when their sessions end or rest for ten minutes."""

    slug = "waiting-for-place"
    title = "The session waits for a place"
    status = 503


class NothingPointedAt(Problem):
    """Without a hint at the object inside of the volume there is nothing to find. Add a point or stroke on the object."""

    slug = "nothing-pointed-at"
    title = "No hint is on the object"
    status = 422


class InteractiveFailed(Problem):
    """The process that computes masks died or took too long. The hints are kept: ask again, or narrow the region by a box."""

    slug = "interactive-failed"
    title = "The mask could not be computed"
    status = 503
