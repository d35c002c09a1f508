"""Where a download becomes a bulk download, which needs a reason.

Bulk begins when one user takes whole files (study, series, several studies in one request) of more than
`ANNOTOMY_BULK_STUDIES` different studies within a day, over whichever edge and with whichever credential. Looking at
images in a viewer is no download, nor is a single instance; both are recorded, and the monthly review shows who looked at
unusually many.
"""

from annotomy.actor import Actor
from annotomy.archive.errors import ReasonRequired
from annotomy.origin import ORIGIN
from annotomy.services import Services


async def admit_download(services: Services, actor: Actor, study_instance_uids: list[str]) -> None:
    """Counts it among the user's of the last day. Raises ReasonRequired, and then it does not count."""
    limit = services.settings.audit.bulk_studies
    if not limit:
        return
    async with services.db.write(actor) as tx:
        await tx.execute(
            "delete from recent_downloads where user_id = $1 and at < now() - interval '1 day'", actor.user_id
        )
        await tx.execute(
            "insert into recent_downloads (user_id, study_instance_uid) select $1, unnest($2::text[]) on conflict"
            " (user_id, study_instance_uid) do update set at = now() where recent_downloads.at < now() - interval '1 hour'",
            actor.user_id, sorted(set(study_instance_uids)),
        )  # fmt: skip
        studies = await tx.fetchval("select count(*) from recent_downloads where user_id = $1", actor.user_id)
        require_reason_for(services, studies)


def require_reason_for(services: Services, studies: int) -> None:
    """For a download of so many studies. The reason goes into every record of the request."""
    limit = services.settings.audit.bulk_studies
    if limit and studies > limit and not ORIGIN.get().reason:
        raise ReasonRequired(
            f"More than {limit} studies within a day are a bulk download, which needs a reason.", limit_studies=limit
        )
