"""What a remote sends to our listener because we asked it to by C-MOVE (PS3.4 C.4.2): whose it is, and where it goes."""

from dataclasses import dataclass
from uuid import UUID

from annotomy.actor import Actor
from annotomy.db.engine import ReadTx


@dataclass(frozen=True, slots=True)
class ExpectedMove:
    """As whom and into which project it is stored. `uids in move`: whether an instance is one that was asked for."""

    actor: Actor
    project_id: UUID
    study_instance_uid: str
    series_instance_uid: str | None

    def __contains__(self, uids: object) -> bool:
        match uids:
            case (str() as study, str() as series, str()):
                return study == self.study_instance_uid and self.series_instance_uid in (None, series)
            case _:
                return False


async def expected_move(tx: ReadTx, ae_title: str, message_id: int) -> ExpectedMove | None:
    """The retrieval that waits for what this AE title sends as a consequence of that message; None: it sends by itself."""
    row = await tx.fetchrow(
        "select t.project_id, t.study_instance_uid, t.series_instance_uid, u.id, u.username, u.is_admin"
        " from remote_retrievals t join remotes r on r.id = t.remote_id join jobs j on j.id = t.job_id"
        " join users u on u.id = t.created_by"
        " where t.move_message_id = $1 and r.kind = 'dimse' and r.address ->> 'ae_title' = $2 and j.state = 'running'"
        " and u.state = 'active'",
        message_id, ae_title,
    )  # fmt: skip
    if row is None:
        return None
    actor = Actor(user_id=row["id"], name=row["username"], is_admin=row["is_admin"])
    return ExpectedMove(actor, row["project_id"], row["study_instance_uid"], row["series_instance_uid"])
