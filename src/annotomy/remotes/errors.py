"""Problems of remotes. A detail names what went wrong in our words, never what the remote said: that may be a patient's."""

from annotomy.errors import Conflict, Problem


class RemoteFailed(Problem):
    """The remote could not be reached, was too slow, or ended the connection. Try again; an administrator can test the
    connection (`POST /remotes/{id}/echo`)."""

    slug = "remote-failed"
    title = "The remote does not answer"
    status = 502


class RemoteUnreadable(RemoteFailed):
    """The remote answered with something other than what was asked for: a web page, a broken or endless body, objects of another
    study. Nothing of it was taken. Check the remote's address, and what stands between."""

    slug = "remote-unreadable"
    title = "The remote's answer makes no sense"


class RemoteRefused(RemoteFailed):
    """The remote does not want us: a wrong password or token, an AE title that it does not know, a service that it lacks."""

    slug = "remote-refused"
    title = "The remote refuses"


class RemoteIncomplete(RemoteFailed):
    """The remote named instances that it did not deliver, or that could not be kept. What came is kept; a new retrieval asks only for
    the rest. `expected` and `present` are counts, `refused` says why instances that came were not kept."""

    slug = "remote-incomplete"
    title = "Not all of it came"


class RemoteHoldsNothing(Problem):
    """The remote names nothing under these UIDs that you may see through this project."""

    slug = "remote-holds-nothing"
    title = "The remote has nothing of this"
    status = 404


class RemoteExists(Conflict):
    """A remote of this name is known already; choose another name, or change that one."""

    slug = "remote-exists"
    title = "The name is taken"


class NothingToPush(Problem):
    """None of what was named may be sent: the project does not hold it, you do not see it, or it is a proposal that nobody has
    accepted."""

    slug = "nothing-to-push"
    title = "Nothing of this may be sent"
    status = 409
