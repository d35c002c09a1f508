"""Content negotiation of DICOMweb (PS3.18 8.7): the Accept header, or the query parameter `accept` in its place."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from litestar import Request

from annotomy.errors import Problem

MAX_RANGES = 32
"""Media ranges that are looked at: browsers send fewer than ten."""


class NotAcceptable(Problem):
    """No form that the resource is offered in was accepted. The detail names those that are."""

    slug = "not-acceptable"
    title = "Not offered in an accepted form"
    status = 406


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One of the Accept header: `type` is that of the parts where `multipart` is true."""

    type: str
    multipart: bool = False
    quality: float = 1.0
    transfer_syntax: str = "*"


@dataclass(frozen=True, slots=True)
class Chosen:
    media_type: str
    multipart: bool | None
    """None where the client leaves it to the server."""


def accepted(request: Request[Any, Any, Any]) -> list[MediaRange]:
    """What the client takes, best first, in its order where equal. Everything, when it says nothing."""
    text = request.query_params.get("accept") or request.headers.get("accept") or "*/*"
    ranges = [_range(one) for one in _split(text, ",")[:MAX_RANGES] if one.strip()]
    return sorted((one for one in ranges if one.quality > 0), key=lambda one: -one.quality)


def choose(request: Request[Any, Any, Any], offered: Sequence[str]) -> Chosen:
    """The form for a resource offered as these media types, the first of them by default. Raises NotAcceptable."""
    for wanted in accepted(request):
        for media_type in offered:
            if covers(wanted.type, media_type):
                explicit = wanted.multipart or wanted.type != "*/*"
                return Chosen(media_type, wanted.multipart if explicit else None)
    raise NotAcceptable(f"It is offered as {', '.join(offered)}, alone or in multipart/related.")


def covers(wanted: str, media_type: str) -> bool:
    return wanted in ("*/*", media_type) or (wanted.endswith("/*") and media_type.startswith(wanted[:-1]))


def _range(text: str) -> MediaRange:
    name, *rest = (part.strip() for part in _split(text, ";"))
    parameters = {
        key.strip().lower(): value.strip().strip('"') for key, _, value in (one.partition("=") for one in rest)
    }
    try:
        quality = float(parameters.get("q", "1"))
    except ValueError:
        quality = 0.0
    multipart = name.lower() == "multipart/related"
    kind = parameters.get("type", "*/*") if multipart else name
    return MediaRange(kind.lower(), multipart, quality, parameters.get("transfer-syntax", "*"))


def _split(text: str, separator: str) -> list[str]:
    """At separators outside of quotes."""
    pieces, quoted = [""], False
    for letter in text:
        quoted ^= letter == '"'
        if letter == separator and not quoted:
            pieces.append("")
        else:
            pieces[-1] += letter
    return pieces
