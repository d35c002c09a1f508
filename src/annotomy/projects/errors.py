"""Problems of projects that are no more than that."""

from annotomy.errors import Conflict, Problem


class LastAdministrator(Conflict):
    """A project keeps at least one member who may manage it. Give another member that right first."""

    slug = "last-administrator"
    title = "The project would have nobody to manage it"


class MatrixRefused(Conflict):
    """A change of many cells is written as a whole or not at all, and some of them did not pass. `results` has, in the order of the
    changes, what became of each; mend or leave out those that were refused."""

    slug = "matrix-refused"
    title = "Some cells cannot be changed so"


class RoleInUse(Conflict):
    """Members or groups have this role. Give them another one first."""

    slug = "role-in-use"
    title = "The role is in use"


class RequestDecided(Conflict):
    """The access request was answered, withdrawn or has lapsed; ask again if it is still needed."""

    slug = "request-decided"
    title = "The request is no longer open"


class ShareRefused(Problem):
    """The link does not exist, has expired, was revoked, was opened as often as it may be, or who gave it out may no longer
    do so. Ask them for a new link."""

    slug = "share-refused"
    title = "The link is not valid any more"
    status = 403


class SharePasswordNeeded(Problem):
    """The link takes a password, which who gave it out knows; none was sent, or a wrong one. Send it as `password`."""

    slug = "share-password-needed"
    title = "The link takes a password"
    status = 403
