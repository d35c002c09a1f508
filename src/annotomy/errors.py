"""The problem catalogue's root: RFC 9457 problem details that features subclass and edges translate once.

A problem's detail never holds patient data: it names identifiers the asker sent, limits and remedies.
"""

from typing import Any, ClassVar


class Problem(Exception):
    """Something the asker can understand. `slug` is stable; `status` is its HTTP form."""

    slug: ClassVar[str] = "problem"
    title: ClassVar[str] = "The request could not be answered"
    status: ClassVar[int] = 400

    def __init__(self, detail: str, **extras: Any) -> None:
        super().__init__(detail)
        self.detail = detail
        self.extras = extras

    def to_json(self) -> dict[str, Any]:
        """The RFC 9457 object, without the request's own members (`instance`, `request_id`)."""
        return {
            "type": f"urn:annotomy:problem:{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
            **self.extras,
        }


class BadRequest(Problem):
    """The request is not of the form that the operation takes; the detail says what is wrong with it."""

    slug = "bad-request"
    title = "The request is not valid"
    status = 400


class Unauthenticated(Problem):
    """No credential, or one that is wrong, expired or revoked. Sign in again or send a valid API key."""

    slug = "unauthenticated"
    title = "Sign in first"
    status = 401


class Forbidden(Problem):
    """The actor may know of the object, but lacks the permission named in the detail."""

    slug = "forbidden"
    title = "Not permitted"
    status = 403


class NotFound(Problem):
    """No such object, or its existence is not for this actor to know."""

    slug = "not-found"
    title = "Not found"
    status = 404


class Conflict(Problem):
    """The object is in a state that does not allow this."""

    slug = "conflict"
    title = "In conflict with the present state"
    status = 409


class PreconditionFailed(Problem):
    """Someone changed the object since it was read; `current_version` says what stands now."""

    slug = "precondition-failed"
    title = "Changed by someone else meanwhile"
    status = 412


class PreconditionRequired(Problem):
    """Edits name the version they start from: send `If-Match` with the ETag that was read."""

    slug = "precondition-required"
    title = "If-Match is required"
    status = 428


class TooLarge(Problem):
    """Over a limit; `limit_bytes` says which."""

    slug = "too-large"
    title = "Too large"
    status = 413


class Unsupported(Problem):
    """A form of content that this server does not read or write."""

    slug = "unsupported"
    title = "Not supported"
    status = 415


class RequestTooSlow(Problem):
    """The request's body paused for too long or came at a crawl. Send it again over a better line, or as an upload."""

    slug = "request-too-slow"
    title = "The request came too slowly"
    status = 408


class TooManyRequests(Problem):
    """Asked too often in too short a time; wait as many seconds as `retry_after_s` and the header `Retry-After` say."""

    slug = "too-many-requests"
    title = "Too many requests"
    status = 429

    def __init__(self, detail: str, *, retry_after_s: int, **extras: Any) -> None:
        super().__init__(detail, retry_after_s=retry_after_s, **extras)


class Unavailable(Problem):
    """A part that the operation needs does not answer now; try again."""

    slug = "unavailable"
    title = "Not available now"
    status = 503
