"""The axes of a matrix, and what its writes share: a page of each axis, one result for each cell, all or nothing."""

from collections.abc import Sequence
from typing import TypeVar

from annotomy.errors import Problem
from annotomy.http.pages import Page, decode_cursor, encode_cursor
from annotomy.projects.errors import MatrixRefused
from annotomy.projects.matrix_schemas import CellResult

T = TypeVar("T")

Asked = tuple[int, str | None]
"""How many of an axis, and after which cursor."""

CHANGED, UNCHANGED = CellResult("changed"), CellResult("unchanged")


def position(asked: Asked, kinds: tuple[type, ...]) -> tuple[object, ...] | None:
    """Where the page begins: after these keys; None for the first page."""
    return None if asked[1] is None else decode_cursor(asked[1], kinds)


def page(found: Sequence[tuple[T, tuple[object, ...]]], asked: Asked, total: int | None) -> Page[T]:
    """Of one row more than was asked for, each with its keys."""
    shown = found[: asked[0]]
    following = encode_cursor(*shown[-1][1]) if len(found) > len(shown) else None
    return Page([one for one, _ in shown], following, total)


def refused(problem: Problem) -> CellResult:
    return CellResult("refused", problem.to_json())


def require_none_refused(results: Sequence[CellResult], assignment_results: Sequence[CellResult] = ()) -> None:
    """Raises MatrixRefused, which takes the transaction back."""
    count = sum(one.outcome == "refused" for one in (*results, *assignment_results))
    if count:
        raise MatrixRefused(
            f"{count} of the changes were refused, so none was written.",
            results=list(results),
            assignment_results=list(assignment_results),
        )
