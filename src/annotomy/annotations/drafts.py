"""Autosaved drafts: what somebody is in the middle of drawing on a study, kept for them and never shown to others.

The content is the client's own and opaque. A draft is no version and needs no ETag: it has one writer.
"""

from datetime import datetime
from typing import Any

import msgspec

from annotomy.db.engine import ReadTx, WriteTx
from annotomy.errors import BadRequest, NotFound, TooLarge

MAX_DRAFT_BYTES = 1 << 20
"""A thousand contours in the making."""
MAX_DRAFTS = 500
"""Of one user: the oldest goes when one more is saved, so that forgotten ones do not stay for ever."""
MAX_KEY = 200


class Draft(msgspec.Struct, frozen=True):
    key: str
    study_instance_uid: str
    saved_at: datetime
    content: Any


class DraftEntry(msgspec.Struct, frozen=True):
    key: str
    study_instance_uid: str
    saved_at: datetime
    bytes: int


async def save_draft(tx: WriteTx, study_instance_uid: str, key: str, content: bytes) -> DraftEntry:
    """`content` is JSON. Raises TooLarge, BadRequest."""
    if not 1 <= len(key) <= MAX_KEY or not key.isprintable():
        raise BadRequest(f"A draft's key has 1 to {MAX_KEY} printable characters.")
    if len(content) > MAX_DRAFT_BYTES:
        raise TooLarge("The draft is over the limit.", limit_bytes=MAX_DRAFT_BYTES)
    try:
        msgspec.json.decode(content)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest("A draft is JSON.") from error
    row = await tx.fetchrow(
        "insert into annotation_drafts (user_id, study_instance_uid, key, content) values ($1, $2, $3, $4)"
        " on conflict (user_id, study_instance_uid, key) do update set content = excluded.content, saved_at = now()"
        " returning key, study_instance_uid, saved_at, length(content) as bytes",
        tx.actor.user_id, study_instance_uid, key, content,
    )  # fmt: skip
    await tx.execute(
        "delete from annotation_drafts where (user_id, study_instance_uid, key) in (select user_id, study_instance_uid, key"
        f" from annotation_drafts where user_id = $1 order by saved_at desc, key offset {MAX_DRAFTS})",
        tx.actor.user_id,
    )
    assert row is not None
    return DraftEntry(**dict(row))


async def get_draft(tx: ReadTx, study_instance_uid: str, key: str) -> Draft:
    row = await tx.fetchrow(
        "select key, study_instance_uid, saved_at, content from annotation_drafts"
        " where user_id = $1 and study_instance_uid = $2 and key = $3",
        tx.actor.user_id, study_instance_uid, key,
    )  # fmt: skip
    if row is None:
        raise NotFound("There is no such draft of yours.")
    return Draft(row["key"], row["study_instance_uid"], row["saved_at"], msgspec.Raw(row["content"]))


async def list_drafts(tx: ReadTx, study_instance_uid: str | None) -> list[DraftEntry]:
    """One's own, the newest first."""
    rows = await tx.fetch(
        "select key, study_instance_uid, saved_at, length(content) as bytes from annotation_drafts"
        " where user_id = $1 and ($2::text is null or study_instance_uid = $2) order by saved_at desc, key",
        tx.actor.user_id, study_instance_uid,
    )  # fmt: skip
    return [DraftEntry(**dict(row)) for row in rows]


async def delete_draft(tx: WriteTx, study_instance_uid: str, key: str) -> None:
    """Deleting what is not there is no error: a client clears after it has saved."""
    await tx.execute(
        "delete from annotation_drafts where user_id = $1 and study_instance_uid = $2 and key = $3",
        tx.actor.user_id, study_instance_uid, key,
    )  # fmt: skip
