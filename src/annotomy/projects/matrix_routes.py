"""Bulk administration: /projects/{id}/matrices/roles and /data, /matrices/members.

A write is one transaction: either every cell passes, or none is written and the problem's `results` say which did not.
"""

from typing import Annotated, Literal
from uuid import UUID

from litestar import Router, get, patch
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from annotomy.actor import Actor
from annotomy.projects import data_matrix, data_matrix_write, member_matrix, role_matrix
from annotomy.projects.matrix_schemas import (
    DEFAULT_AXIS,
    MAX_AXIS,
    DataMatrix,
    DataMatrixChange,
    MatrixResult,
    MemberMatrix,
    MemberMatrixChange,
    RoleMatrix,
    RoleMatrixChange,
)
from annotomy.services import Services

AxisLimit = Annotated[int, QueryParameter(ge=1, le=MAX_AXIS)]


@get("/projects/{project_id:uuid}/matrices/roles", operation_id="GetRoleMatrix", opt={"permission": "project.manage"})
async def get_roles(
    project_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    row_limit: AxisLimit = DEFAULT_AXIS,
    row_cursor: FromQuery[str | None] = None,
    column_limit: AxisLimit = DEFAULT_AXIS,
    column_cursor: FromQuery[str | None] = None,
) -> RoleMatrix:
    """Which role has which permission: the project's own roles first, then those of every project."""
    rows, columns = (row_limit, row_cursor), (column_limit, column_cursor)
    async with services.db.read(actor) as tx:
        return await role_matrix.read(tx, project_id, rows=rows, columns=columns)


@patch(
    "/projects/{project_id:uuid}/matrices/roles", operation_id="ChangeRoleMatrix", opt={"permission": "project.manage"}
)
async def change_roles(
    project_id: FromPath[UUID],
    data: JSONBody[RoleMatrixChange],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> MatrixResult:
    """Give permissions to roles of the project's own, and take them away; of those that one holds."""
    async with services.db.write(actor) as tx:
        return await role_matrix.write(tx, project_id, data)


@get("/matrices/members", operation_id="GetMemberMatrix", opt={"permission": "project.manage"})
async def get_members(
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    q: FromQuery[str] = "",
    row_limit: AxisLimit = DEFAULT_AXIS,
    row_cursor: FromQuery[str | None] = None,
    column_limit: AxisLimit = DEFAULT_AXIS,
    column_cursor: FromQuery[str | None] = None,
) -> MemberMatrix:
    """Who has which role in which of the projects that one manages.

    Rows are the members of any of them; for an administrator of the installation, every account. `q` narrows them by name.
    """
    rows, columns = (row_limit, row_cursor), (column_limit, column_cursor)
    async with services.db.read(actor) as tx:
        return await member_matrix.read(tx, q=q, rows=rows, columns=columns)


@patch("/matrices/members", operation_id="ChangeMemberMatrix", opt={"permission": "project.manage"})
async def change_members(
    data: JSONBody[MemberMatrixChange], actor: NamedDependency[Actor], services: NamedDependency[Services]
) -> MatrixResult:
    """Give people roles in projects that one manages, and take their own memberships away."""
    async with services.db.write(actor) as tx:
        return await member_matrix.write(tx, data)


@get("/projects/{project_id:uuid}/matrices/data", operation_id="GetDataMatrix", opt={"permission": "project.manage"})
async def get_data(
    project_id: FromPath[UUID],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
    level: FromQuery[Literal["study", "series"]] = "study",
    q: FromQuery[str] = "",
    row_limit: AxisLimit = DEFAULT_AXIS,
    row_cursor: FromQuery[str | None] = None,
    column_limit: AxisLimit = DEFAULT_AXIS,
    column_cursor: FromQuery[str | None] = None,
) -> DataMatrix:
    """What each member sees of each study or series, and why. Rows are what one sees oneself; `q` narrows the members by name."""
    rows, columns = (row_limit, row_cursor), (column_limit, column_cursor)
    async with services.db.read(actor) as tx:
        return await data_matrix.read(tx, project_id, level=level, q=q, rows=rows, columns=columns)


@patch(
    "/projects/{project_id:uuid}/matrices/data", operation_id="ChangeDataMatrix", opt={"permission": "project.manage"}
)
async def change_data(
    project_id: FromPath[UUID],
    data: JSONBody[DataMatrixChange],
    actor: NamedDependency[Actor],
    services: NamedDependency[Services],
) -> MatrixResult:
    """Put studies and series into the project or take them out, and write rules for single people that name just one of them."""
    async with services.db.write(actor) as tx:
        return await data_matrix_write.write(tx, project_id, data)


router = Router(
    path="/",
    tags=["projects"],
    route_handlers=[get_roles, change_roles, get_members, change_members, get_data, change_data],
)
