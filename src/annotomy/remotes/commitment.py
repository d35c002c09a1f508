"""Storage commitment of what was pushed (PS3.4 J), as SCU: the result belongs to the push whose transaction it names."""

from annotomy.db.engine import WriteTx
from annotomy.events import Event, emit
from annotomy.remotes.remote_archive import CommitmentResult


async def apply_result(
    tx: WriteTx, transaction_uid: str, result: CommitmentResult, *, ae_title: str | None = None
) -> bool:
    """Whether the transaction is one of ours, asked of the remote of this AE title (None: it answered where it was asked).

    What it does not promise, though it took it, is sent again: bytes that nobody promises to keep are as good as lost.
    """
    push = await tx.fetchrow(
        "select p.id, p.remote_id, p.project_id, p.study_instance_uid from remote_pushes p join remotes r on r.id = p.remote_id"
        " where p.transaction_uid = $1 and p.state = 'sent' and ($2::text is null or r.address ->> 'ae_title' = $2)"
        " for update of p",
        transaction_uid, ae_title,
    )  # fmt: skip
    if push is None:
        return False
    await tx.execute(
        "update remote_push_instances set state = 'committed', reason = ''"
        " where push_id = $1 and state = 'sent' and sop_instance_uid = any($2)",
        push["id"], sorted(result.committed),
    )  # fmt: skip
    for sop_instance_uid, reason in result.failed.items():
        await tx.execute(
            "update remote_push_instances set state = 'pending', reason = $3"
            " where push_id = $1 and sop_instance_uid = $2 and state in ('sent', 'committed')",
            push["id"], sop_instance_uid, f"not committed by the remote ({reason & 0xFFFF:04X}H)",
        )  # fmt: skip
    open_ones = await tx.fetchval(
        "select count(*) from remote_push_instances where push_id = $1 and state <> 'committed'", push["id"]
    )
    if not open_ones:
        await tx.execute("update remote_pushes set state = 'committed', finished_at = now() where id = $1", push["id"])
    elif result.failed:
        await tx.execute(
            "update remote_pushes set state = 'queued', next_attempt_at = now(), transaction_uid = null, finished_at = null"
            " where id = $1",
            push["id"],
        )
    event = Event(
        type="remote.commitment_told",
        object_kind="remote",
        object_id=str(push["remote_id"]),
        project_id=push["project_id"],
        study_instance_uid=push["study_instance_uid"],
        outcome="success" if not open_ones else "failure",
        data={"push_id": str(push["id"]), "committed": len(result.committed), "failed": len(result.failed)},
    )
    await emit(tx, event)
    return True
