"""Why something is changed: a body that may be left out."""

from typing import Annotated, Any

import msgspec
from litestar import Request

from annotomy.errors import BadRequest

MAX_WHY = 1000
Why = Annotated[str, msgspec.Meta(max_length=MAX_WHY)]


class Reason(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    why: Why = ""


async def reason_of(request: Request[Any, Any, Any]) -> str:
    """Of a deletion, whose body most clients cannot send. Raises BadRequest."""
    body = await request.body()
    try:
        return msgspec.json.decode(body, type=Reason).why if body else ""
    except msgspec.MsgspecError as error:
        raise BadRequest("The body of a deletion is empty, or an object with the member why.") from error
