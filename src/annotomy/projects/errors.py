"""Problems of projects that are no more than that."""

from annotomy.errors import Conflict


class LastAdministrator(Conflict):
    """A project keeps at least one member who may manage it. Give another member that right first."""

    slug = "last-administrator"
    title = "The project would have nobody to manage it"


class RoleInUse(Conflict):
    """Members or groups have this role. Give them another one first."""

    slug = "role-in-use"
    title = "The role is in use"


class RequestDecided(Conflict):
    """The access request was answered, withdrawn or has lapsed; ask again if it is still needed."""

    slug = "request-decided"
    title = "The request is no longer open"
