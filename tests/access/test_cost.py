"""What access costs, counted in pages of the database and in rows that are written: never in time."""

import json
from typing import Any
from uuid import UUID

from annotomy.actor import SYSTEM, Actor
from annotomy.archive.query import Query, query
from annotomy.db.engine import Database, ReadTx
from annotomy.projects.rules import create_rule, delete_rule
from annotomy.projects.schemas import NewRule
from annotomy.projects.service import create_project
from tests.support.application import Application

STUDIES = 2000
PAGE = 10
MAX_BLOCKS = 60 * PAGE
"""Of one page: both walls and the counts of each study. All studies together take more than 20,000."""


async def test_a_page_of_the_list_costs_a_page_with_rules_and_without(application: Application) -> None:
    db = application.services.db
    actor = await application.add_user("reader")
    project = await _project_of_many(db, actor)
    blocks = {"no rules": await _blocks_of_a_page(db, actor)}
    async with db.write(actor, unrestricted=True) as tx:
        await create_rule(tx, project, NewRule("ALLOW", "STUDY", "PatientID", "PRESENT", True))
        await create_rule(tx, project, NewRule("DENY", "SERIES", "Modality", "IN", ["mr"]))
    await _analyze(db)
    blocks["rules"] = await _blocks_of_a_page(db, actor)
    assert max(blocks.values()) < MAX_BLOCKS, blocks


async def test_a_change_of_rules_leaves_the_verdicts_that_stay(application: Application) -> None:
    db = application.services.db
    actor = await application.add_user("reader")
    project = await _project_of_many(db, actor)
    async with db.write(actor, unrestricted=True) as tx:
        await create_rule(tx, project, NewRule("ALLOW", "STUDY", "PatientID", "PRESENT", True))
    before = await _verdicts(db)
    async with db.write(actor, unrestricted=True) as tx:
        denial = await create_rule(tx, project, NewRule("DENY", "STUDY", "PatientID", "EQ", "p7"))
        equal = await create_rule(tx, project, NewRule("DENY", "STUDY", "PatientID", "EQ", "p8"))
    without = await _verdicts(db)
    assert len(before) == STUDIES
    assert len(before - without) == 2, "two rows went"
    assert without < before, "no other row was written"
    async with db.write(actor, unrestricted=True) as tx:
        for rule in (denial, equal):
            await delete_rule(tx, project, rule.id)
    after = await _verdicts(db)
    assert (len(after), after > without) == (STUDIES, True)


async def _project_of_many(db: Database, actor: Actor) -> UUID:
    async with db.write(actor, unrestricted=True) as tx:
        project = await create_project(tx, name="many", description="")
        await tx.execute(
            "insert into studies (study_instance_uid, patient_id, study_date, study_at, series_count, instance_count,"
            " modalities, rule_values)"
            " select '1.2.' || n, 'P' || n, day, day, 2, 2, '{CT,MR}', jsonb_build_object('PatientID', jsonb_build_array('p' || n))"
            " from generate_series(1, $1::integer) n, lateral (select date '2020-01-01' + n % 700 as day) d",
            STUDIES,
        )
        await tx.execute(
            "insert into series (study_id, series_instance_uid, modality, instance_count, rule_values)"
            " select id, study_instance_uid || '.' || modality, upper(modality), 1,"
            " jsonb_build_object('Modality', jsonb_build_array(modality)) from studies, unnest(array['ct', 'mr']) modality"
        )
        await tx.execute(
            "insert into project_items (project_id, study_id, study_at) select $1, id, study_at from studies",
            project.id,
        )
        # Many small projects, by whose size the planner judges this one.
        await tx.execute(
            "with small as (insert into projects (id, name, created_by) select gen_random_uuid(), 'small', $1"
            " from generate_series(1, 400) returning id)"
            " insert into project_items (project_id, study_id, study_at) select small.id, st.id, st.study_at"
            " from small, (select id, study_at from studies limit 1) st",
            actor.user_id,
        )
    await _analyze(db)
    return project.id


async def _analyze(db: Database) -> None:
    async with db.session() as connection:
        await connection.execute("vacuum analyze")


async def _blocks_of_a_page(db: Database, actor: Actor) -> int:
    async with db.read(actor) as tx:
        explaining = _Explaining(tx)
        found = await query(explaining, Query("study", limit=PAGE))
        assert len(found.rows) == PAGE
        return explaining.blocks


class _Explaining(ReadTx):
    """Also notes how many blocks each statement touched."""

    def __init__(self, tx: ReadTx) -> None:
        super().__init__(tx.raw, tx.actor)
        self.blocks = 0

    async def fetch(self, sql: str, *values: Any) -> list[Any]:
        [row] = await super().fetch(f"explain (analyze, buffers, format json) {sql}", *values)
        plan: Any = row[0] if isinstance(row[0], list) else json.loads(row[0])
        self.blocks += plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]
        return await super().fetch(sql, *values)


async def _verdicts(db: Database) -> set[tuple[int, str]]:
    """Each with the transaction that wrote it."""
    async with db.read(SYSTEM) as tx:
        rows = await tx.fetch("select study_id, xmin::text as written from project_items where audience_id <> 0")
    return {(row["study_id"], row["written"]) for row in rows}
