"""Who is told of which workitems (PS3.4 CC.2.3): one, all, or all that match a filter.

A subscriber is an AE title of a user's: another user may use the same title without either knowing of the other.
"""

from typing import Any, Final

import msgspec

from annotomy.db.engine import ReadTx, WriteTx
from annotomy.errors import BadRequest, NotFound
from annotomy.workitems.search import check_keys, matches
from annotomy.workitems.service import Workitem, get_workitem

GLOBAL: Final = "1.2.840.10008.5.1.4.34.5"
FILTERED: Final = "1.2.840.10008.5.1.4.34.5.1"
MAX_SUBSCRIPTIONS: Final = 1000
"""Of one user: each event looks through those of its subscriber."""


async def subscribe(tx: WriteTx, ae_title: str, workitem_uid: str, filter_keys: dict[str, str]) -> None:
    """Raises NotFound for a workitem that the actor does not see, BadRequest."""
    _check_title(ae_title)
    if workitem_uid == FILTERED:
        if not filter_keys:
            raise BadRequest("A filtered subscription has a filter.")
        check_keys(filter_keys)
    elif filter_keys:
        raise BadRequest("A filter goes with the filtered global subscription.")
    elif workitem_uid != GLOBAL:
        await get_workitem(tx, workitem_uid)
    held = await tx.fetchval("select count(*) from workitem_subscriptions where user_id = $1", tx.actor.user_id)
    if held >= MAX_SUBSCRIPTIONS:
        raise BadRequest(f"One user has at most {MAX_SUBSCRIPTIONS} subscriptions.", limit_items=MAX_SUBSCRIPTIONS)
    await tx.execute(
        "insert into workitem_subscriptions (user_id, ae_title, workitem_uid, filter) values ($1, $2, $3, $4)"
        " on conflict (user_id, ae_title, workitem_uid)"
        " do update set subscribed = true, filter = excluded.filter, suspended_at = null",
        tx.actor.user_id, ae_title, workitem_uid, filter_keys or None,
    )  # fmt: skip


async def unsubscribe(tx: WriteTx, ae_title: str, workitem_uid: str) -> None:
    """From all with the global UID; from one also out of what a global subscription covers. Raises NotFound."""
    held = {row["workitem_uid"] for row in await _held(tx, ae_title)}
    if workitem_uid in (GLOBAL, FILTERED):
        if workitem_uid not in held:
            raise NotFound("There is no such subscription.")
        await tx.execute(
            "delete from workitem_subscriptions where user_id = $1 and ae_title = $2 and ($3 or workitem_uid = $4)",
            tx.actor.user_id, ae_title, workitem_uid == GLOBAL, workitem_uid,
        )  # fmt: skip
        return
    await get_workitem(tx, workitem_uid)
    if {GLOBAL, FILTERED} & held:
        await tx.execute(
            "insert into workitem_subscriptions (user_id, ae_title, workitem_uid, subscribed) values ($1, $2, $3, false)"
            " on conflict (user_id, ae_title, workitem_uid) do update set subscribed = false",
            tx.actor.user_id, ae_title, workitem_uid,
        )  # fmt: skip
    elif workitem_uid in held:
        await tx.execute(
            "delete from workitem_subscriptions where user_id = $1 and ae_title = $2 and workitem_uid = $3",
            tx.actor.user_id, ae_title, workitem_uid,
        )  # fmt: skip
    else:
        raise NotFound("There is no such subscription.")


async def suspend(tx: WriteTx, ae_title: str, workitem_uid: str) -> None:
    """What is created from now on is not subscribed to; what is there stays. Raises NotFound, BadRequest."""
    if workitem_uid not in (GLOBAL, FILTERED):
        await get_workitem(tx, workitem_uid)
        raise BadRequest("Only a global subscription is suspended.")
    done = await tx.execute(
        "update workitem_subscriptions set suspended_at = now() where user_id = $1 and ae_title = $2 and workitem_uid = $3",
        tx.actor.user_id, ae_title, workitem_uid,
    )  # fmt: skip
    if done == "UPDATE 0":
        raise NotFound("There is no such subscription.")


async def followed(tx: ReadTx, ae_title: str) -> list[str]:
    """The workitems that are subscribed to one by one. Raises NotFound without any subscription."""
    held = await _held(tx, ae_title)
    if not held:
        raise NotFound("There is no such subscriber.")
    return [row["workitem_uid"] for row in held if row["subscribed"] and row["workitem_uid"] not in (GLOBAL, FILTERED)]


async def is_told(tx: ReadTx, ae_title: str, found: Workitem) -> bool:
    held = {row["workitem_uid"]: row for row in await _held(tx, ae_title)}
    if found.workitem_uid in held:
        return bool(held[found.workitem_uid]["subscribed"])
    for well_known in (GLOBAL, FILTERED):
        row = held.get(well_known)
        if row is None or (row["suspended_at"] is not None and found.created_at >= row["suspended_at"]):
            continue
        if well_known == GLOBAL or await matches(
            tx, found.workitem_uid, msgspec.convert(row["filter"], dict[str, str])
        ):
            return True
    return False


async def _held(tx: ReadTx, ae_title: str) -> list[dict[str, Any]]:
    rows = await tx.fetch(
        "select workitem_uid, subscribed, filter, suspended_at from workitem_subscriptions"
        " where user_id = $1 and ae_title = $2 order by workitem_uid",
        tx.actor.user_id, ae_title,
    )  # fmt: skip
    return [dict(row) for row in rows]


def _check_title(ae_title: str) -> None:
    if not (
        1 <= len(ae_title) <= 16 and ae_title.isascii() and ae_title.isprintable() and ae_title == ae_title.strip()
    ):
        raise BadRequest("An AE title has 1 to 16 ASCII characters.")
