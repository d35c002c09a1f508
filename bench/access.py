"""What the access wall costs over a million series: an administrator of a project of everything, a member of one
department, and a member of a project with 50 rules ask the same; what a change of rules, the
matrices of bulk administration and the audit's chain cost.

Our own code over our own PostgreSQL; there is no peer that enforces rules in its query. Rows are made by SQL, not stored.
"""

import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from annotomy.actor import SYSTEM, Actor
from annotomy.archive.query import Level, Query, query
from annotomy.audit import Entry, record
from annotomy.db.engine import Database, ReadTx
from annotomy.db.migrate import migrate
from annotomy.db.private_server import PrivateServer
from annotomy.ops.audit_chain import APPEND_LOCK, AuditChain
from annotomy.projects.rules import create_rule, delete_rule, terms
from annotomy.projects.schemas import NewRule
from annotomy.projects.service import create_project, list_studies
from bench.machine import facts
from bench.matrices import measure_matrices
from bench.measure import RESULTS

STUDIES = 250_000
SERIES_OF_STUDY = 4
RULES = 50
ONE_STUDY = "1.2.840.99.77"
DEPARTMENTS = 40
"""Projects that hold a fortieth of the studies each, scattered over all days."""
FILL_S = 1800.0
REPEATS = 60
WRITERS_S = 5
GOAL = 1.5
"""The promise: with 50 rules a list of studies costs at most this many times that of who sees all by assignment."""
ADMINISTRATOR, MEMBER, RULED = (
    "administrator of a project of everything",
    "member of one department",
    f"member, {RULES} rules over everything",
)


@dataclass(frozen=True)
class Asker:
    actor: Actor
    project_id: UUID


Case = Callable[[ReadTx, Asker], Awaitable[object]]


async def measure(studies: int, repeats: int, writers_s: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="annotomy-bench-") as folder:
        Path(folder).chmod(0o711)
        server = PrivateServer(Path(folder))
        try:
            url = await asyncio.to_thread(server.start)
            await migrate(url)
            db = await Database.connect(url, pool_size=8, audit_key=bytes(32))
            try:
                result: dict[str, Any] = {"studies": studies, "series": studies * SERIES_OF_STUDY, "rules": RULES}
                askers, seconds = await fill(db, studies)
                result |= seconds
                result["reads, median ms"] = await _reads(db, askers, repeats)
                ruled = askers[RULED]
                result["matrices of 200 x 200 cells"] = await measure_matrices(
                    db, ruled.actor, ruled.project_id, repeats
                )
                result["audited transactions of 8 writers, per second"] = await _writers(db, Path(folder), writers_s)
                return result
            finally:
                await db.close()
        finally:
            await asyncio.to_thread(server.stop)


# -- what is there ----------------------------------------------------------------------------------------------------


async def fill(db: Database, studies: int) -> tuple[dict[str, Asker], dict[str, float]]:
    """Who asks, and how long the rules took to decide."""
    actors = {name: Actor(uuid4(), name) for name in (ADMINISTRATOR, MEMBER, RULED)}
    async with db.write(SYSTEM) as tx:
        for number, actor in enumerate(actors.values()):
            await tx.execute("insert into users (id, username) values ($1, $2)", actor.user_id, f"user{number}")
    await fill_studies(db, studies)
    held = {ADMINISTRATOR: "true", MEMBER: _department(0), RULED: "true"}
    askers = {name: Asker(actor, await _project(db, actor, held[name])) for name, actor in actors.items()}
    somebody = Actor(uuid4(), "somebody")
    async with db.write(SYSTEM) as tx:
        await tx.execute("insert into users (id, username) values ($1, 'somebody')", somebody.user_id)
    for number in range(1, DEPARTMENTS):
        await _project(db, somebody, _department(number))
    seconds = await _rules(db, askers[RULED])
    async with db.session() as connection:
        await connection.execute("vacuum analyze", timeout=FILL_S)
    return askers, seconds


async def fill_studies(db: Database, studies: int) -> None:
    """Studies and their series, in nobody's project."""
    async with db.session() as connection:
        await connection.execute("set app.actor = '00000000-0000-0000-0000-000000000000'")
        for table in ("studies", "series"):
            await connection.execute(f"alter table {table} no force row level security")
        # It takes a lock for each study, which no transaction has room for a million times.
        await connection.execute("alter table studies disable trigger mark_repeated")
        await connection.execute(_STUDIES, studies, timeout=FILL_S)
        await connection.execute(_SERIES, SERIES_OF_STUDY, timeout=FILL_S)
        await connection.execute("alter table studies enable trigger mark_repeated")
        for table in ("studies", "series"):
            await connection.execute(f"alter table {table} force row level security")
        await connection.execute("reset app.actor")
        await connection.execute("vacuum analyze", timeout=FILL_S)


# Every study has the attributes that the list answers; a third of the patients came twice or more often.
_STUDIES = """
insert into studies (study_instance_uid, patient_id, patient_name, name_key, patient_sex, study_date, study_at,
  study_description, accession_number, modalities, series_count, instance_count, attributes, rule_values)
select uid, patient, name, lower(name), sex, day, day + (n % 86400) * interval '1 s', described, 'A' || n,
  array['CT', 'MR', 'PT', 'DX'], 4, 400,
  jsonb_build_object('00080020', jsonb_build_object('vr', 'DA', 'Value', jsonb_build_array(to_char(day, 'YYYYMMDD'))),
    '00080050', jsonb_build_object('vr', 'SH', 'Value', jsonb_build_array('A' || n)),
    '00081030', jsonb_build_object('vr', 'LO', 'Value', jsonb_build_array(described)),
    '00100010', jsonb_build_object('vr', 'PN', 'Value', jsonb_build_array(jsonb_build_object('Alphabetic', name))),
    '00100020', jsonb_build_object('vr', 'LO', 'Value', jsonb_build_array(patient)),
    '00100040', jsonb_build_object('vr', 'CS', 'Value', jsonb_build_array(sex)),
    '0020000D', jsonb_build_object('vr', 'UI', 'Value', jsonb_build_array(uid))),
  jsonb_build_object('PatientID', jsonb_build_array(lower(patient)), 'PatientSex', jsonb_build_array(lower(sex)),
    'StudyDate', jsonb_build_array(to_char(day, 'YYYYMMDD')), 'StudyDescription', jsonb_build_array(lower(described)))
from (select n, '1.2.840.99.' || n as uid, 'P' || n * 2654435761 % ($1 * 2 / 3) as patient,
  'Name' || n * 2654435761 % ($1 * 2 / 3) || '^Given' as name, case when n % 2 = 0 then 'F' else 'M' end as sex,
  date '2005-01-01' + (n * 7919 % 7300)::integer as day,
  (array['CT chest', 'MR head', 'PET CT whole body', 'Chest pa', 'CT abdomen', 'MR knee'])[1 + n % 6] as described
  from generate_series(1, $1::bigint) n) made"""
_SERIES = """
insert into series (study_id, series_instance_uid, modality, series_number, instance_count, attributes, rule_values)
select st.id, st.study_instance_uid || '.' || n, modality, n, 100,
  jsonb_build_object('00080060', jsonb_build_object('vr', 'CS', 'Value', jsonb_build_array(modality)),
    '0020000E', jsonb_build_object('vr', 'UI', 'Value', jsonb_build_array(st.study_instance_uid || '.' || n)),
    '00200011', jsonb_build_object('vr', 'IS', 'Value', jsonb_build_array(n))),
  jsonb_build_object('Modality', jsonb_build_array(lower(modality)),
    'StationName', jsonb_build_array('station ' || (st.id * 7 + n) % 400))
from studies st, generate_series(1, $1::integer) n, lateral (select (array['CT', 'MR', 'PT', 'DX'])[n] as modality) m"""


def _department(number: int) -> str:
    return f"id * 2654435761 % 1000003 % {DEPARTMENTS} = {number}"


async def _project(db: Database, actor: Actor, holds: str) -> UUID:
    async with db.write(actor, unrestricted=True) as tx:
        project = await create_project(tx, name="bench", description="")
        # It takes a lock for each study, which no transaction has room for a million times.
        await tx.execute("alter table project_items disable trigger bind_annotations")
        await tx.execute(
            f"insert into project_items (project_id, study_id, study_at, added_by) select $1, id, study_at, $2 from studies where {holds}",
            project.id, actor.user_id,
        )  # fmt: skip
        await tx.execute("alter table project_items enable trigger bind_annotations")
    return project.id


async def _rules(db: Database, asker: Asker) -> dict[str, float]:
    """All but the last are put in place at once, as a restore would; then one denial less, and one more."""
    actor, project_id = asker.actor, asker.project_id
    for number in range(RULES - 1):
        rule = _rule(number)
        async with db.write(actor, unrestricted=True) as tx:
            await tx.execute(
                "insert into project_rules (id, project_id, effect, level, attribute, operator, value, terms, created_by)"
                " values ($1, $2, $3, $4, $5, $6, $7, $8, $1)",
                uuid4(), project_id, rule.effect, rule.level, rule.attribute, rule.operator, [rule.value],
                terms(rule.attribute, rule.operator, rule.value),
            )  # fmt: skip
    seconds = dict[str, float]()
    started = time.perf_counter()
    async with db.write(actor, unrestricted=True) as tx:
        kept = await create_rule(tx, project_id, _rule(RULES - 1))
    seconds["the first rules, everything decided, s"] = round(time.perf_counter() - started, 2)
    async with db.session() as connection:
        await connection.execute("vacuum analyze", timeout=FILL_S)
    started = time.perf_counter()
    async with db.write(actor, unrestricted=True) as tx:
        await delete_rule(tx, project_id, kept.id)
    seconds["a denial less, s"] = round(time.perf_counter() - started, 2)
    started = time.perf_counter()
    async with db.write(actor, unrestricted=True) as tx:
        await create_rule(tx, project_id, _rule(RULES - 1))
    seconds["a denial more, s"] = round(time.perf_counter() - started, 2)
    return seconds


def _rule(number: int) -> NewRule:
    """Every operator; they leave about five sixths of the studies, most of them whole."""
    fixed = [
        NewRule("ALLOW", "STUDY", "PatientID", "PRESENT", True),
        NewRule("ALLOW", "STUDY", "PatientSex", "IN", ["F", "M"]),
        NewRule("LIMIT", "STUDY", "StudyDate", "RANGE", "20060101-"),
        NewRule("DENY", "STUDY", "StudyDescription", "CONTAINS", "knee"),
        NewRule("DENY", "SERIES", "StationName", "IN", [f"station {n}" for n in range(8)]),
    ]
    if number < len(fixed):
        return fixed[number]
    if number % 2:
        return NewRule("DENY", "SERIES", "StationName", "EQ", f"station {number}")
    return NewRule("DENY", "STUDY", "PatientID", "EQ", f"P{number}")


# -- what it costs to read --------------------------------------------------------------------------------------------


def _cases() -> dict[str, Case]:
    def asked(level: Level, match: dict[str, str], limit: int = 100, offset: int = 0) -> Case:
        return lambda tx, _: query(tx, Query(level, match, limit=limit, offset=offset))

    month = {"ModalitiesInStudy": "CT", "StudyDate": "20200101-20200131"}
    return {
        "studies, newest 100": asked("study", {}),
        "studies, 100 from the 1,000th": asked("study", {}, offset=1000),
        "studies of a name": asked("study", {"PatientName": "Name12*"}),
        "studies of a modality and month": asked("study", month),
        "one study": asked("study", {"StudyInstanceUID": ONE_STUDY}),
        "series of a study": asked("series", {"StudyInstanceUID": ONE_STUDY}),
        "series, newest 100": asked("series", {}),
        "a project's studies and their total": lambda tx, asker: list_studies(
            tx, asker.project_id, limit=50, after=None
        ),
    }


async def _reads(db: Database, askers: dict[str, Asker], repeats: int) -> dict[str, Any]:
    """Everybody in turn, so that what else runs on the machine slows all alike; the first rounds warm up."""
    result = dict[str, Any]()
    for name, case in _cases().items():
        times: dict[str, list[float]] = {who: [] for who in askers}
        for number in range(repeats + 6):
            for who, asker in askers.items():
                started = time.perf_counter()
                async with db.read(asker.actor) as tx:
                    assert await case(tx, asker)
                if number >= 6:
                    times[who].append(time.perf_counter() - started)
        result[name] = {who: round(statistics.median(of) * 1000, 3) for who, of in times.items()}
        for who in (MEMBER, RULED):
            result[name][f"{who}: ratio"] = round(result[name][who] / result[name][ADMINISTRATOR], 2)
    return result


# -- what the audit costs writers -------------------------------------------------------------------------------------


async def _writers(db: Database, folder: Path, seconds: int) -> dict[str, int]:
    """Transactions of one record: without an audit, into the outbox as we do, and hashed under a lock at their end."""
    entry = Entry(action="bench.done", object_kind="thing", object_id="1")

    async def nothing(number: int) -> None:
        async with db.write(SYSTEM) as tx:
            await tx.execute(
                "insert into idempotency_keys values ($1, $2, '', '', 200, '{}', '')", uuid4(), str(number)
            )

    async def outbox(number: int) -> None:
        async with db.write(SYSTEM) as tx:
            await tx.execute(
                "insert into idempotency_keys values ($1, $2, '', '', 200, '{}', '')", uuid4(), str(number)
            )
            await record(tx, entry)

    async def locked(number: int) -> None:
        async with db.write(SYSTEM) as tx:
            await tx.execute(
                "insert into idempotency_keys values ($1, $2, '', '', 200, '{}', '')", uuid4(), str(number)
            )
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


async def _value(db: Database, sql: str) -> Any:
    async with db.read(SYSTEM) as tx:
        return await tx.fetchval(sql)


def run(runs: int, alone: bool) -> None:
    """`runs` scales the size: 3 is 250,000 studies, a million series."""
    del alone  # there is no peer
    machine = facts()
    result = asyncio.run(measure(STUDIES * runs // 3, REPEATS, WRITERS_S))
    notes = "milliseconds of one query in a transaction of its own, all in one process; ratios are to the administrator"
    content = {"benchmark": "access", "notes": notes, "machine": machine, "result": result}
    print(json.dumps(result, indent=1))
    ratio = result["reads, median ms"]["studies, newest 100"][f"{RULED}: ratio"]
    print(f"the list of studies with {RULES} rules: {ratio} of the administrator's, promised {GOAL}")
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / "access.json"
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")
