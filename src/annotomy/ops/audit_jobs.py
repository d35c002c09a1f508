"""What the workers do for the audit by the calendar: the review of the month that ended, and its seal."""

from annotomy.actor import SYSTEM
from annotomy.jobs.handlers import Schedule
from annotomy.ops.audit_chain import AuditChain
from annotomy.ops.audit_review import bounds_of, make_review, month_before, month_of
from annotomy.ops.audit_segments import seal_months
from annotomy.services import Services

MOST_MONTHS = 120
"""Made up for at once after a long time without a worker."""


async def make_reviews(services: Services) -> int:
    """Of every month that is over and has records. Returns how many were made."""
    await AuditChain(services.db, services.settings.data_dir).append_all()
    settings = services.settings.audit
    async with services.db.read(SYSTEM) as tx:
        first = await tx.fetchval("select min(at) from audit")
        known = {row["month"] for row in await tx.fetch("select month from audit_reviews")}
    made, month = 0, month_before(month_of(services.clock.now(), settings.time_zone))
    for _ in range(MOST_MONTHS):
        if first is None or bounds_of(month, settings.time_zone)[1] <= first:
            break
        if month not in known:
            async with services.db.write(SYSTEM) as tx:
                made += await make_review(tx, settings, month)
        month = month_before(month)
    return made


# Each day: a worker that was away on the first of the month makes up for it, and doing it twice does nothing.
SCHEDULES = [
    Schedule("review-audit", "10 1 * * *", make_reviews),
    Schedule("seal-audit", "40 1 * * *", seal_months),
]
