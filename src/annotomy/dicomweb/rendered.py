"""Rendered resources of WADO-RS (PS3.18 10.4.1.1.3, 10.4.1.1.4, 8.3.5): pictures and thumbnails at every level."""

import math
import secrets
from collections.abc import AsyncIterator, Mapping
from typing import Any, Literal

import msgspec
from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.response import Stream

from annotomy.actor import Actor
from annotomy.archive.decode import frame_sources, render
from annotomy.archive.downloads import admit_download
from annotomy.archive.errors import ReasonRequired
from annotomy.archive.retrieve import InstanceLocation, locate
from annotomy.dicom.multipart import message_end, part_head
from annotomy.dicom.pixels import PixelError
from annotomy.dicom.rendering import MAX_VIEWPORT, MEDIA_TYPES, Presentation, Viewport, WindowFunction
from annotomy.dicomweb.accept import NotAcceptable, choose
from annotomy.dicomweb.frame_list import frame_numbers
from annotomy.errors import BadRequest, NotFound, Problem, Unavailable
from annotomy.http.content_cache import ContentCache, content_key, entity_tag, is_current
from annotomy.http.openapi import per_level
from annotomy.services import Services

PRIVATE_DAY = {"Cache-Control": "private, max-age=86400"}
"""Instances never change; they are private to who may see them."""
THUMBNAIL_SIDE = 160
MAX_PICTURES = 10_000
"""Pictures of one answer: a study of more is asked for by series."""
CACHE_BYTES = 24 << 20
"""Of each process: the thumbnails of some thousand series, or a hundred pictures of 512 x 512."""
_pictures = ContentCache(CACHE_BYTES)
_STUDY = "/dicom-web/studies/{study_instance_uid:str}"
_SERIES = _STUDY + "/series/{series_instance_uid:str}"
_INSTANCE = _SERIES + "/instances/{sop_instance_uid:str}"
_FRAMES = _INSTANCE + "/frames/{frame_list:str}"

Shown = tuple[InstanceLocation, int]
"""An instance and the number of a frame of it."""


class NotRendered(Problem):
    """The pixels could not be decoded: damaged, too large, or of a transfer syntax without a codec here."""

    slug = "not-rendered"
    title = "The frame cannot be decoded"
    status = 406


_VIEWS = {
    "permission": "study.read",
    "shared": "study.read",
    "audit": "study.viewed",
    "problems": [NotRendered, NotAcceptable, BadRequest, Unavailable, ReasonRequired],
}


@get(
    [f"{path}/rendered" for path in (_STUDY, _SERIES, _INSTANCE, _FRAMES)],
    operation_id=per_level("RetrieveRendered"),
    opt=_VIEWS | {"gives": ["multipart/related", *MEDIA_TYPES]},
    tags=["dicomweb"],
)
async def rendered(
    request: Request[Any, Any, Any], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[bytes] | Stream:
    """Pictures of frames: one alone, or as many as there are in multipart/related.

    Query: window, viewport, quality, annotation, iccprofile, accept.
    """
    chosen = choose(request, MEDIA_TYPES)
    presentation = presentation_of(request.query_params, chosen.media_type)
    shown = await _shown(request, actor, services)
    if len(shown) > 1 and chosen.multipart is not True:
        # An instance shows its first frame, as viewers that ask for a plain picture expect of it.
        one = "sop_instance_uid" in request.path_params and "frame_list" not in request.path_params
        if one:
            shown = shown[:1]
        elif chosen.multipart is False:
            raise NotAcceptable(
                f'These are {len(shown)} pictures; accept multipart/related; type="{chosen.media_type}".'
            )
    if "sop_instance_uid" not in request.path_params:  # all that a study or series shows is a way to take it along
        await admit_download(services, actor, [shown[0][0].study_instance_uid])
    if len(shown) == 1 and not chosen.multipart:
        return await _alone(request, services, actor, *shown[0], presentation)
    first = await picture(services, actor, *shown[0], presentation)
    return _message(services, actor, shown, first, presentation)


@get(
    [f"{path}/thumbnail" for path in (_STUDY, _SERIES, _INSTANCE, _FRAMES)],
    operation_id=per_level("RetrieveThumbnail"),
    opt=_VIEWS | {"gives": [*MEDIA_TYPES]},
    tags=["dicomweb"],
)
async def thumbnail(
    request: Request[Any, Any, Any], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> Response[bytes]:
    """A small picture of the middle. Query: viewport, accept."""
    chosen = choose(request, MEDIA_TYPES)
    presentation = presentation_of(request.query_params, chosen.media_type)
    if presentation.viewport is None:
        presentation = msgspec.structs.replace(presentation, max_side=THUMBNAIL_SIDE)
    uids = {name: value for name, value in request.path_params.items() if name.endswith("_uid")}
    async with services.db.read(actor) as tx:
        located = [at for at in await locate(tx, **uids) if at.number_of_frames]
    if not located:
        raise NotFound("There is no picture in it.")
    middle = located[len(located) // 2]
    number = (middle.number_of_frames + 1) // 2
    if "frame_list" in request.path_params:
        [number, *_] = frame_numbers(str(request.path_params["frame_list"]), middle.number_of_frames)
    return await _alone(request, services, actor, middle, number, presentation)


async def _alone(
    request: Request[Any, Any, Any],
    services: Services,
    actor: Actor,
    located: InstanceLocation,
    frame_number: int,
    presentation: Presentation,
) -> Response[bytes]:
    """One picture; who has it is told that it is the same."""
    told = PRIVATE_DAY | {"ETag": entity_tag(_picture_key(located, frame_number, presentation))}
    if is_current(request.headers.get("if-none-match"), told["ETag"]):
        return Response(b"", status_code=304, headers=told)
    body = await picture(services, actor, located, frame_number, presentation)
    return Response(body, media_type=presentation.media_type, headers=told)


async def picture(
    services: Services, actor: Actor, located: InstanceLocation, frame_number: int, presentation: Presentation
) -> bytes:
    """Of an instance that the actor was found to see. Raises NotRendered."""
    key = _picture_key(located, frame_number, presentation)
    known = _pictures.get(key)
    if known is not None:
        return known
    [source] = await frame_sources(services, actor, [located])
    try:
        made = await render(services, source, frame_number - 1, presentation)
    except PixelError as error:
        raise NotRendered(str(error)) from error
    _pictures.put(key, made)
    return made


def _picture_key(located: InstanceLocation, frame_number: int, presentation: Presentation) -> str:
    return content_key("picture", located.blob_address, frame_number, presentation)


async def _shown(request: Request[Any, Any, Any], actor: Actor, services: Services) -> list[Shown]:
    """Every frame of the resource, in its order."""
    uids = {name: value for name, value in request.path_params.items() if name.endswith("_uid")}
    async with services.db.read(actor) as tx:
        located = await locate(tx, **uids)
    if "frame_list" in request.path_params:
        [at] = located
        return [(at, number) for number in frame_numbers(str(request.path_params["frame_list"]), at.number_of_frames)]
    if sum(at.number_of_frames for at in located) > MAX_PICTURES:
        raise BadRequest(f"These are more than {MAX_PICTURES} pictures; ask for each series or for frames.")
    shown = [(at, number) for at in located for number in range(1, at.number_of_frames + 1)]
    if not shown:
        raise NotFound("There is no picture in it.")
    return shown


def _message(services: Services, actor: Actor, shown: list[Shown], first: bytes, presentation: Presentation) -> Stream:
    """A part for each picture. One that cannot be made breaks the message off: what came is never taken for all."""
    boundary = secrets.token_hex(16)

    async def parts() -> AsyncIterator[bytes]:
        for index, (at, number) in enumerate(shown):
            body = first if index == 0 else await picture(services, actor, at, number, presentation)
            base = f"/dicom-web/studies/{at.study_instance_uid}/series/{at.series_instance_uid}"
            location = f"{base}/instances/{at.sop_instance_uid}/frames/{number}/rendered"
            headers = [("Content-Type", presentation.media_type), ("Content-Location", location)]
            yield part_head(boundary, headers, first=index == 0) + body
        yield message_end(boundary)

    kind = f'multipart/related; type="{presentation.media_type}"; boundary={boundary}'
    return Stream(parts, media_type=kind, headers=PRIVATE_DAY)


# -- the parameters of PS3.18 8.3.5.1 ---------------------------------------------------------------------------------


def presentation_of(query: Mapping[str, str], media_type: str) -> Presentation:
    """Raises BadRequest for a value that its parameter does not take."""
    window, function = _window(query.get("window"))
    return Presentation(
        media_type=media_type,
        window=window,
        function=function,
        viewport=_viewport(query.get("viewport")),
        quality=quality_of(query.get("quality")),
        annotation=annotation_of(query.get("annotation")),
        icc_profile=_icc_profile(query.get("iccprofile")),
    )


def _window(text: str | None) -> tuple[tuple[float, float] | None, WindowFunction]:
    if text is None:
        return None, "linear"
    parts = text.split(",")
    functions: dict[str, WindowFunction] = {"linear": "linear", "linear-exact": "linear-exact", "sigmoid": "sigmoid"}
    function = functions.get(parts[2].lower()) if len(parts) == 3 else "linear"
    if not 2 <= len(parts) <= 3 or function is None:
        raise BadRequest("window takes centre,width[,linear|linear-exact|sigmoid] in modality units.")
    return window_of(parts[0], parts[1]), function


def window_of(centre: str, width: str) -> tuple[float, float]:
    found = number("window", centre), number("window", width)
    if found[1] <= 0:
        raise BadRequest("The window's width is above 0.")
    return found


def _viewport(text: str | None) -> Viewport | None:
    """width,height[,left,top,width,height], where a part of the region may be empty."""
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) not in (2, 6):
        raise BadRequest("viewport takes width,height and, if wanted, a region of the frame: left,top,width,height.")
    left, top, width, height = (None if one == "" else number("viewport", one) for one in [*parts[2:], *[""] * 4][:4])
    if width == 0 or height == 0:
        raise BadRequest("The region of the viewport has a width and a height.")
    return Viewport(side(parts[0]), side(parts[1]), (left or 0, top or 0, width, height))


def side(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= MAX_VIEWPORT):
        raise BadRequest(f"A picture has 1 to {MAX_VIEWPORT} columns and rows.")
    return int(text)


def quality_of(text: str | None) -> int:
    if text is None:
        return Presentation().quality
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= 100):
        raise BadRequest("quality takes a whole number from 1 to 100.")
    return int(text)


def annotation_of(text: str | None) -> tuple[Literal["patient", "technique"], ...]:
    kinds: dict[str, Literal["patient", "technique"]] = {"patient": "patient", "technique": "technique"}
    asked = [] if text is None else [one.strip().lower() for one in text.split(",")]
    if any(one not in kinds for one in asked):
        raise BadRequest("annotation takes patient, technique or both, separated by a comma.")
    return tuple(kinds[one] for one in asked)


def _icc_profile(text: str | None) -> Literal["no", "yes", "srgb"]:
    kinds: dict[str, Literal["no", "yes", "srgb"]] = {"no": "no", "yes": "yes", "srgb": "srgb"}
    found = kinds.get("no" if text is None else text.lower())
    if found is None:
        raise BadRequest("iccprofile takes no, yes or srgb; other colour spaces are not made here.")
    return found


def number(name: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadRequest(f"{name} takes numbers, separated by commas.")
    return value


handlers = [rendered, thumbnail]
