"""Entity tags of edited resources: the version number, quoted. Edits name the version that they start from."""

from annotomy.errors import BadRequest, PreconditionRequired


def etag(version: int) -> str:
    return f'"{version}"'


def expected_version(if_match: str | None) -> int:
    """The version that `If-Match` names. Raises PreconditionRequired without the header."""
    if if_match is None:
        raise PreconditionRequired("Send If-Match with the ETag of the version that was read.")
    text = if_match.strip().removeprefix("W/").strip('"')
    if not (text.isascii() and text.isdigit()):
        raise BadRequest('If-Match takes one ETag of this resource, as "3".')
    return int(text)
