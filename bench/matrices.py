"""What the matrices of bulk administration cost at their largest page, 200 x 200 cells: the operation and its JSON, p95."""

import time
from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID, uuid4

import msgspec

from annotomy.actor import SYSTEM, Actor
from annotomy.db.engine import Database
from annotomy.projects import data_matrix, member_matrix, role_matrix
from annotomy.projects.matrix_schemas import MAX_AXIS
from annotomy.projects.members import PUT_MEMBER
from annotomy.projects.roles import ROLES
from annotomy.projects.service import create_project
from annotomy.projects.visibility import lock_policy, settle_project

STUDIES = 5000
"""That the project holds."""
PERSONAL_RULES = 20
"""Members with a rule of their own: each is an audience, decided over all studies."""
OWN_ROLES = 100


async def measure_matrices(db: Database, manager: Actor, ruled_project_id: UUID, repeats: int) -> dict[str, Any]:
    """In a project of its own with the rules of another one, both of which `manager` manages."""
    project_id, people = await _fill(db, manager, ruled_project_id)
    page = (MAX_AXIS, None)

    async def roles() -> Any:
        async with db.read(manager) as tx:
            return await role_matrix.read(tx, project_id, rows=page, columns=page)

    async def members() -> Any:
        async with db.read(manager) as tx:
            return await member_matrix.read(tx, q="", rows=page, columns=page)

    async def studies() -> Any:
        async with db.read(manager) as tx:
            return await data_matrix.read(tx, project_id, level="study", q="", rows=page, columns=page)

    async def series() -> Any:
        async with db.read(manager) as tx:
            return await data_matrix.read(tx, project_id, level="series", q="", rows=page, columns=page)

    return {
        "people": people,
        "roles x permissions, p95 ms": await _p95(roles, repeats),
        "users x projects, p95 ms": await _p95(members, repeats),
        "studies x users, p95 ms": await _p95(studies, repeats),
        "series x users, p95 ms": await _p95(series, repeats),
    }


async def _fill(db: Database, manager: Actor, ruled_project_id: UUID) -> tuple[UUID, int]:
    async with db.write(manager, unrestricted=True) as tx:
        project_id = (await create_project(tx, name="bench matrices", description="")).id
        await tx.execute(
            "insert into project_items (project_id, study_id, study_at, added_by) select $1, id, study_at, $2 from studies"
            " order by study_at desc, id desc limit $3",
            project_id, manager.user_id, STUDIES,
        )  # fmt: skip
        await tx.execute(
            "insert into project_rules (id, project_id, effect, level, attribute, operator, value, terms, created_by)"
            " select gen_random_uuid(), $2, effect, level, attribute, operator, value, terms, created_by from project_rules"
            " where project_id = $1",
            ruled_project_id, project_id,
        )  # fmt: skip
    users = [uuid4() for _ in range(MAX_AXIS)]
    projects = [uuid4() for _ in range(MAX_AXIS)]
    given = ("viewer", "annotator", "blinded_reader")
    async with db.write(SYSTEM) as tx:
        await tx.executemany(
            "insert into users (id, username) values ($1, $2)", [(one, f"person {n:04}") for n, one in enumerate(users)]
        )
        await tx.executemany(
            "insert into projects (id, name, created_by) values ($1, $2, $3)",
            [(one, f"bench {n:04}", manager.user_id) for n, one in enumerate(projects)],
        )
        everyone = [(one, manager.user_id, "project_admin") for one in projects]
        everyone += [(one, user, given[n % 2]) for n, user in enumerate(users) for one in projects]
        everyone += [(project_id, user, given[n % 2]) for n, user in enumerate(users)]
        await tx.executemany(
            PUT_MEMBER, [(project, user, role, sorted(ROLES[role]), None, None) for project, user, role in everyone]
        )
        await tx.executemany(
            "insert into project_rules (id, project_id, effect, level, attribute, operator, value, terms, user_id, created_by)"
            " values ($1, $2, 'DENY', 'STUDY', 'PatientID', 'EQ', $3, $4, $5, $1)",
            [(uuid4(), project_id, [f"p{n}"], [f"p{n}"], users[n]) for n in range(PERSONAL_RULES)],
        )
        await tx.executemany(
            "insert into project_roles (project_id, name, label_en, label_ko, permissions) values ($1, $2, $2, $2, $3)",
            [(project_id, f"role_{n}", sorted(ROLES["viewer"])) for n in range(OWN_ROLES)],
        )
        await lock_policy(tx, project_id)
        await settle_project(tx, project_id)
    async with db.session() as connection:
        await connection.execute("vacuum analyze")
    return project_id, len(users) + 1


async def _p95(once: Callable[[], Awaitable[Any]], repeats: int) -> float:
    times: list[float] = []
    for number in range(repeats + 5):
        started = time.perf_counter()
        matrix = await once()
        msgspec.json.encode(matrix)
        if number >= 5:  # the first ones warm the caches
            times.append(time.perf_counter() - started)
        assert matrix.cells
        assert matrix.cells[0]
    return round(sorted(times)[int(len(times) * 0.95)] * 1000, 1)
