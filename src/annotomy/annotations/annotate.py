"""Create and edit with all that stands around the write: rights, target, label set, the frame's pixels.

Each opens a read transaction to check, measures outside of any, and writes in one more.
"""

from dataclasses import replace
from typing import Any
from uuid import UUID

import msgspec

from annotomy.actor import Actor
from annotomy.annotations import rows, service
from annotomy.annotations.errors import InvalidAnnotation
from annotomy.annotations.prepare import Prepared, complete, image_of, prepare_content, prepare_new
from annotomy.annotations.rights import Action
from annotomy.annotations.schemas import Annotation, NewAnnotation
from annotomy.db.engine import ReadTx
from annotomy.http.idempotency import Answer, Keyed, claim, remember, replay
from annotomy.http.reasons import MAX_WHY
from annotomy.services import Services

UNTOUCHABLE = frozenset(Annotation.__struct_fields__) - set(rows.EDITABLE)


async def create_annotation(
    services: Services, actor: Actor, new: NewAnnotation, *, asked: Keyed | None = None
) -> Answer:
    async with services.db.read(actor, keep_plans=True) as tx:
        known = await replay(tx, asked)
        if known is not None:
            return known
        prepared = await prepare_new(tx, new)
    prepared = await complete(services, prepared)
    async with services.db.write(actor, keep_plans=True) as tx:
        known = await claim(tx, asked)
        if known is not None:
            return known
        made = await service.create(tx, prepared, new)
        answer = answer_of(made, 201, {"Location": f"/api/v1/annotations/{made.id}"})
        await remember(tx, asked, answer)
    return answer


async def edit_annotation(
    services: Services,
    actor: Actor,
    annotation_id: UUID,
    patch: dict[str, Any],
    *,
    expected_version: int,
    asked: Keyed | None = None,
) -> Answer:
    """`patch` is a merge patch of what people edit; a member `why` says why."""
    why, patch = split_patch(patch)
    async with services.db.read(actor, keep_plans=True) as tx:
        known = await replay(tx, asked)
        if known is not None:
            return known
        prepared = await prepare_edit(tx, annotation_id, patch, expected_version=expected_version)
    prepared = await complete(services, prepared)
    async with services.db.write(actor, keep_plans=True) as tx:
        known = await claim(tx, asked)
        if known is not None:
            return known
        made = await service.edit(tx, annotation_id, prepared, patch, expected_version=expected_version, why=why)
        answer = answer_of(made, 200)
        await remember(tx, asked, answer)
    return answer


def split_patch(patch: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The reason, and the patch without it. Raises InvalidAnnotation for members that nobody may set."""
    patch = dict(patch)
    why = patch.pop("why", None) or ""
    if not isinstance(why, str) or len(why) > MAX_WHY or "\0" in why:
        raise InvalidAnnotation(f"why is a text of at most {MAX_WHY} characters.", field="why")
    for name in patch:
        if name in UNTOUCHABLE:
            raise InvalidAnnotation("This member follows from others and is not set.", field=name)
        if name not in rows.EDITABLE:
            raise InvalidAnnotation("There is no such member.", field=name[:64])
    return why, patch


async def prepare_edit(tx: ReadTx, annotation_id: UUID, patch: dict[str, Any], *, expected_version: int) -> Prepared:
    """What was measured stays with a shape that stays."""
    standing = await service.stand(tx, annotation_id, Action.EDIT, lock=False)
    await service.require_version(tx, standing, expected_version, patch)
    before = standing.prepared
    try:
        content = service.patched(standing, patch)
    except msgspec.ValidationError as error:
        raise InvalidAnnotation(f"The annotation would not be valid: {error}", field="") from error
    prepared = await prepare_content(tx, standing.target, content, before=before.content)
    if prepared.content.geometry == before.content.geometry:
        return prepared.measured_as(before)
    return replace(prepared, image=await image_of(tx, standing.target))


def answer_of(made: Annotation, status: int, headers: dict[str, str] | None = None) -> Answer:
    return Answer(status, msgspec.json.encode(made), {"ETag": f'"{made.version}"', **(headers or {})})
