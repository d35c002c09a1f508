"""What the access wall costs: the study list and a point read, seen without a wall, as a member of a project without rules,
and as a member of one with 50 rules; what a change of rules, the
matrices of bulk administration and the audit's chain cost.

Our own code over our own PostgreSQL; there is no peer that enforces rules in its query. Rows are copied in, not stored.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from annotomy.actor import SYSTEM, Actor
from annotomy.archive.query import Query, query
from annotomy.audit import Entry, record
from annotomy.db.engine import Database
from annotomy.db.migrate import migrate
from annotomy.db.private_server import PrivateServer
from annotomy.ops.audit_chain import APPEND_LOCK, AuditChain
from annotomy.projects.rules import create_rule
from annotomy.projects.schemas import NewRule
from annotomy.projects.service import create_project
from bench.machine import facts
from bench.matrices import measure_matrices
from bench.measure import RESULTS

SERIES_OF_STUDY = 5
RULES = 50


async def measure(studies: int, repeats: int, writers: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="annotomy-bench-") as folder:
        Path(folder).chmod(0o711)
        server = PrivateServer(Path(folder))
        try:
            url = await asyncio.to_thread(server.start)
            await migrate(url)
            db = await Database.connect(url, pool_size=8, audit_key=bytes(32))
            try:
                return await _all(db, Path(folder), studies, repeats, writers)
            finally:
                await db.close()
        finally:
            await asyncio.to_thread(server.stop)


async def _all(db: Database, folder: Path, studies: int, repeats: int, writers: int) -> dict[str, Any]:
    member = Actor(uuid4(), "member")
    async with db.write(SYSTEM) as tx:
        await tx.execute(
            "insert into users (id, username) values ($1, 'member'), ($2, 'ruled')", member.user_id, uuid4()
        )
    await _fill(db, studies)
    ruled = Actor(await _value(db, "select id from users where username = 'ruled'"), "ruled")
    plain_project, ruled_project = [await _project(db, actor) for actor in (member, ruled)]
    del plain_project
    result: dict[str, Any] = {"studies": studies, "series": studies * SERIES_OF_STUDY, "rules": RULES}
    list_all = Query("study", limit=100)
    one_study = Query("study", {"StudyInstanceUID": "1.2.3.77"}, limit=1)
    ct_of_a_month = Query("study", {"ModalitiesInStudy": "CT", "StudyDate": "20200101-20200131"}, limit=100)
    cases = {"newest 100": list_all, "one study": one_study, "modality and month": ct_of_a_month}
    started = time.perf_counter()
    for number in range(RULES):
        async with db.write(ruled, unrestricted=True) as tx:
            # The last one decides about everything; the others are put in place at once, as a restore would.
            if number == RULES - 1:
                started = time.perf_counter()
                await create_rule(tx, ruled_project, _rule(number))
            else:
                await tx.execute(
                    "insert into project_rules (id, project_id, effect, level, attribute, operator, value, terms, created_by)"
                    " values ($1, $2, $3, $4, $5, $6, $7, $8, $1)",
                    uuid4(), ruled_project, *_columns(number),
                )  # fmt: skip
    result["a change of rules, all studies decided anew, s"] = round(time.perf_counter() - started, 2)
    async with db.pool.acquire() as connection:
        await connection.execute("vacuum analyze")
    for name, asked in cases.items():
        result[name] = {
            "without a wall, ms": await _median(db, SYSTEM, asked, repeats),
            "member, project without rules, ms": await _median(db, member, asked, repeats),
            f"member, project with {RULES} rules, ms": await _median(db, ruled, asked, repeats),
        }
    result["permission check, ms"] = await _permission_check(db, member, repeats)
    result["matrices of 200 x 200 cells"] = await measure_matrices(db, ruled, ruled_project, repeats)
    result["audited transactions of 8 writers, per second"] = await _writers(db, folder, writers)
    return result


def _rule(number: int) -> NewRule:
    if number == 0:
        return NewRule("ALLOW", "STUDY", "PatientID", "PRESENT", True)
    if number % 2:
        return NewRule("DENY", "SERIES", "StationName", "EQ", f"station {number}")
    return NewRule("DENY", "STUDY", "PatientID", "EQ", f"p{number}")


def _columns(number: int) -> tuple[Any, ...]:
    rule = _rule(number)
    terms = ["true"] if rule.operator == "PRESENT" else [str(rule.value).lower()]
    return rule.effect, rule.level, rule.attribute, rule.operator, [rule.value], terms


async def _fill(db: Database, studies: int) -> None:
    async with db.pool.acquire() as connection:
        await connection.execute("set app.actor = '00000000-0000-0000-0000-000000000000'")
        for table in ("studies", "series"):
            await connection.execute(f"alter table {table} no force row level security")
        await connection.execute(
            "insert into studies (study_instance_uid, patient_id, patient_name, name_key, study_date, study_at, modalities,"
            " series_count, instance_count, rule_values)"
            f" select '1.2.3.' || n, 'p' || n % {studies // 3}, 'Name' || n, 'name' || n, day, day + (n % 86400) * interval '1 s',"
            f" '{{CT,MR}}', {SERIES_OF_STUDY}, {SERIES_OF_STUDY},"
            f" jsonb_build_object('PatientID', jsonb_build_array('p' || n % {studies // 3}))"
            f" from (select n, date '2010-01-01' + (n * 7919 % 5000) as day from generate_series(1, {studies}) n) made"
        )
        await connection.execute(
            "insert into series (study_id, series_instance_uid, modality, instance_count, rule_values)"
            " select st.id, st.study_instance_uid || '.' || n, case when n % 2 = 0 then 'MR' else 'CT' end, 1,"
            " jsonb_build_object('Modality', jsonb_build_array(case when n % 2 = 0 then 'mr' else 'ct' end),"
            " 'StationName', jsonb_build_array('station ' || (st.id * 7 + n) % 200))"
            f" from studies st, generate_series(1, {SERIES_OF_STUDY}) n"
        )
        for table in ("studies", "series"):
            await connection.execute(f"alter table {table} force row level security")
        await connection.execute("reset app.actor")
        await connection.execute("vacuum analyze")


async def _project(db: Database, actor: Actor) -> UUID:
    async with db.write(actor, unrestricted=True) as tx:
        project = await create_project(tx, name="bench", description="")
        await tx.execute(
            "insert into project_items (project_id, study_id, added_by) select $1, id, $2 from studies",
            project.id, actor.user_id,
        )  # fmt: skip
    return project.id


async def _median(db: Database, actor: Actor, asked: Query, repeats: int) -> float:
    if actor is SYSTEM:  # the view is empty for the system: the walls are taken out of the statement by a member of all
        return await _without_wall(db, asked, repeats)

    async def once() -> None:
        async with db.read(actor) as tx:
            found = await query(tx, asked)
        assert found.rows

    return await _timed(once, repeats)


async def _without_wall(db: Database, asked: Query, repeats: int) -> float:
    conditions = {
        "newest 100": "true",
        "StudyInstanceUID": "study_instance_uid = '1.2.3.77'",
        "ModalitiesInStudy": "modalities && '{CT}' and study_date between '2020-01-01' and '2020-01-31'",
    }
    condition = next((sql for name, sql in conditions.items() if name in asked.match), "true")

    async def once() -> None:
        async with db.read(SYSTEM) as tx:
            assert await tx.fetch(
                "select attributes, modalities, series_count, instance_count from studies"
                f" where {condition} order by study_at desc, id desc limit {asked.limit}"
            )

    return await _timed(once, repeats)


async def _permission_check(db: Database, member: Actor, repeats: int) -> float:
    from annotomy.projects.access import Permission, require

    project = await _value(db, f"select project_id from project_members where user_id = '{member.user_id}'")
    async with db.read(member) as tx:

        async def once() -> None:
            await require(tx, member, Permission.STUDY_READ, project)

        return await _timed(once, repeats * 10)


async def _writers(db: Database, folder: Path, seconds: int) -> dict[str, int]:
    """Transactions of one record: without an audit, into the outbox as we do, and hashed under a lock at their end."""
    entry = Entry(action="bench.done", object_kind="thing", object_id="1")

    async def nothing(number: int) -> None:
        async with db.write(SYSTEM) as tx:
            await tx.execute("insert into idempotency_keys values ($1, $2, '', '', 200, '')", uuid4(), str(number))

    async def outbox(number: int) -> None:
        async with db.write(SYSTEM) as tx:
            await tx.execute("insert into idempotency_keys values ($1, $2, '', '', 200, '')", uuid4(), str(number))
            await record(tx, entry)

    async def locked(number: int) -> None:
        async with db.write(SYSTEM) as tx:
            await tx.execute("insert into idempotency_keys values ($1, $2, '', '', 200, '')", uuid4(), str(number))
            await tx.execute("select pg_advisory_xact_lock($1)", APPEND_LOCK + 1)
            await tx.fetchrow("select seq, hash from audit order by seq desc limit 1")
            await record(tx, entry)

    chain = AuditChain(db, folder)
    result: dict[str, int] = {}
    for name, work in (("no audit", nothing), ("outbox, chained after", outbox), ("lock at the end", locked)):
        result[name] = await _rate(work, seconds)
        started = time.perf_counter()
        before = await _value(db, "select count(*) from audit_outbox")
        await chain.append_all()
        if before:
            result[f"{name}: records chained per second"] = round(before / (time.perf_counter() - started))
    return result


async def _rate(work: Callable[[int], Awaitable[None]], seconds: int) -> int:
    done, end = 0, time.perf_counter() + seconds

    async def writer() -> None:
        nonlocal done
        while time.perf_counter() < end:
            await work(done)
            done += 1

    await asyncio.gather(*(writer() for _ in range(8)))
    return round(done / seconds)


async def _timed(once: Callable[[], Awaitable[None]], repeats: int) -> float:
    for _ in range(5):
        await once()
    times: list[float] = []
    for _ in range(repeats):
        started = time.perf_counter()
        await once()
        times.append(time.perf_counter() - started)
    return round(statistics.median(times) * 1000, 3)


async def _value(db: Database, sql: str) -> Any:
    async with db.read(SYSTEM) as tx:
        return await tx.fetchval(sql)


def run(runs: int, alone: bool) -> None:
    """`runs` scales the size: 3 is 200,000 studies, a million series."""
    del alone  # there is no peer
    before = facts()
    studies = 200_000 * runs // 3
    result = before | {"result": asyncio.run(measure(studies, repeats=100, writers=5))}
    (RESULTS / "access.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(result["result"], indent=2))
