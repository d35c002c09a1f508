"""What can be wrong with live updates."""

from annotomy.errors import Problem


class TooManyStreams(Problem):
    """One user has too many event streams open. Close one: a browser needs a single stream for all of its tabs."""

    slug = "too-many-streams"
    title = "Too many open streams"
    status = 429
