"""/api/v1/annotations: lists."""

from datetime import datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from litestar import Response, Router, get
from litestar.di import NamedDependency
from litestar.openapi import ResponseSpec
from litestar.params import FromQuery, QueryParameter

from annotomy.actor import Actor
from annotomy.annotations.query import Filter, list_annotations, list_summaries
from annotomy.annotations.schemas import Annotation, State, Summary
from annotomy.http.pages import DEFAULT_LIMIT, Page
from annotomy.services import Services


async def provide_filter(
    project_id: FromQuery[UUID | None] = None,
    study_instance_uid: FromQuery[str | None] = None,
    series_instance_uid: FromQuery[str | None] = None,
    sop_instance_uid: FromQuery[str | None] = None,
    frame_number: FromQuery[int | None] = None,
    author: Annotated[str | None, QueryParameter(description="A username or a user's id.")] = None,
    label: Annotated[str | None, QueryParameter(description="A code's value, or a label's text.")] = None,
    states: Annotated[list[State] | None, QueryParameter(name="state", description="Any of these states.")] = None,
    tool: Annotated[str | None, QueryParameter(description="What its name begins with.")] = None,
    model: Annotated[str | None, QueryParameter(description="The AI model that it comes from.")] = None,
    assigned_to: Annotated[str | None, QueryParameter(description="A username or a user's id.")] = None,
    kind: FromQuery[str | None] = None,
    geometry_type: FromQuery[str | None] = None,
    created_from: FromQuery[datetime | None] = None,
    created_before: FromQuery[datetime | None] = None,
    updated_from: FromQuery[datetime | None] = None,
    updated_before: FromQuery[datetime | None] = None,
    text: Annotated[str | None, QueryParameter(max_length=200, description="Part of description or label.")] = None,
    deleted: Annotated[bool, QueryParameter(description="The deleted ones instead.")] = False,
) -> Filter:
    return Filter(**locals())


@get("/", operation_id="ListAnnotations", opt={"permission": "annotation.read"}, exclude_from_compression=True,
     responses={200: ResponseSpec(data_container=Page[Annotation], generate_examples=False)})  # fmt: skip
async def list_(
    asked: NamedDependency[Filter],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    view: Annotated[
        Literal["full", "summary"], QueryParameter(description="summary leaves the geometry out.")
    ] = "full",
    limit: FromQuery[int] = DEFAULT_LIMIT,
    cursor: FromQuery[str | None] = None,
) -> Response[Any]:
    """Annotations that one may read, the newest first. Filters combine."""
    # A text that is looked for decides by itself which index is best.
    async with services.db.read(actor, keep_plans=asked.text is None) as tx:
        found: Page[Annotation] | Page[Summary]
        if view == "summary":
            found = await list_summaries(tx, asked, limit=limit, cursor=cursor)
        else:
            found = await list_annotations(tx, asked, limit=limit, cursor=cursor)
    return Response(found)


router = Router(
    path="/annotations", tags=["annotations"], route_handlers=[list_], dependencies={"asked": provide_filter}
)
