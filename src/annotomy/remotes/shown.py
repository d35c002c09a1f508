"""What a project's rules show of a remote's answer: the truth table of projects/visibility.py over rows that are stored nowhere.

The same compiled predicate that settles stored studies runs over the answer, whose rows stand in for the tables: one study, its series
(below study level only their modalities are known), and one instance in each of which nothing is known. Whatever the remote did not
tell counts as unreadable, which hides: a DENY takes it for a match, an ALLOW or a LIMIT does not.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from pydicom.datadict import tag_for_keyword

from annotomy.db.engine import ReadTx
from annotomy.errors import Forbidden, NotFound
from annotomy.projects.access import VALID
from annotomy.projects.attributes import Table, of_table, rule_values
from annotomy.projects.visibility import Rule, rules_for, verdict
from annotomy.remotes.remote_archive import uid_of

MODALITIES, STUDY_SERIES, STUDY_INSTANCES = "00080061", "00201206", "00201208"
_NEVER_TOLD = frozenset({"SOPClassUID", "SOPInstanceUID"})


@dataclass(frozen=True, slots=True)
class Policy:
    """The rules that hold for the asker in a project; None: it has none, and a remote that is open to it is open as a whole."""

    rules: tuple[Rule, ...] | None


async def policy_for(tx: ReadTx, project_id: UUID) -> Policy:
    """Of the transaction's actor. Raises NotFound for who is no member, Forbidden for a blinded one: an answer tells of the work of others."""
    member = await tx.fetchrow(
        "select m.role, m.blinded, exists (select from project_rules r where r.project_id = m.project_id) as ruled"
        f" from project_members m where m.project_id = $1 and m.user_id = $2 and {VALID}",
        project_id, tx.actor.user_id,
    )  # fmt: skip
    if member is None:
        raise NotFound("There is no such project.")
    if member["blinded"]:
        raise Forbidden("A blinded member does not see what remotes hold.")
    if not member["ruled"]:
        return Policy(None)
    return Policy(tuple(await rules_for(tx, project_id, role=member["role"], user_id=tx.actor.user_id)))


async def shown_studies(tx: ReadTx, policy: Policy, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The studies of which something is shown, without the modalities and counts that would tell of the rest."""
    if policy.rules is None:
        return list(rows)
    series = [
        (number, None, {"Modality": [modality]} if modality else {})
        for number, row in enumerate(rows)
        for modality in _texts(row, MODALITIES) or [""]
    ]
    seen = await _seen(tx, policy.rules, rows, series, untold=_NEVER_TOLD | {"SeriesInstanceUID"})
    answer: list[dict[str, Any]] = []
    for number, row in enumerate(rows):
        of_row = [n for n, (at, _, _) in enumerate(series) if at == number]
        if kept := [n for n in of_row if n in seen]:
            answer.append(
                row if kept == of_row else _narrowed(row, [series[n][2].get("Modality", [""])[0] for n in kept])
            )
    return answer


async def shown_series(
    tx: ReadTx, policy: Policy, study: dict[str, Any], rows: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The series of one study that are shown; `study` is its row at study level."""
    if policy.rules is None:
        return list(rows)
    series = [(0, uid_of(row, "series"), _values(row, of_table("series"))) for row in rows]
    seen = await _seen(tx, policy.rules, [study], series, untold=_NEVER_TOLD)
    return [row for number, row in enumerate(rows) if number in seen]


_EVALUATE = """
with studies as materialized (
  select * from jsonb_to_recordset($1::jsonb) as x (id bigint, study_instance_uid text, rule_values jsonb)
), series as materialized (
  select * from jsonb_to_recordset($2::jsonb) as x (id bigint, study_id bigint, series_instance_uid text, rule_values jsonb)
), instances as materialized (
  select se.id, se.study_id, se.id as series_id, null::text as sop_instance_uid, null::text as sop_class_uid,
         $3::jsonb as rule_values
  from series se
), held as materialized (select st.*, FLAGS from studies st where STUDIES)
select se.id from held st join series se on se.study_id = st.id join instances i on i.series_id = se.id where SEEN"""


async def _seen(
    tx: ReadTx,
    rules: Iterable[Rule],
    studies: Sequence[Mapping[str, Any]],
    series: Sequence[tuple[int, str | None, dict[str, list[str]]]],
    *,
    untold: Iterable[str],
) -> set[int]:
    """Numbers of the series that are shown."""
    decidable = [decided(rule, untold) for rule in rules]
    if not any(rule.effect == "ALLOW" for rule in decidable) or not series:
        return set()
    values: list[Any] = [
        [
            {
                "id": n,
                "study_instance_uid": uid_of(row, "study"),
                "rule_values": _kept("study", _values(row, of_table("study"))),
            }
            for n, row in enumerate(studies)
        ],
        [
            {"id": n, "study_id": at, "series_instance_uid": uid, "rule_values": _kept("series", told)}
            for n, (at, uid, told) in enumerate(series)
        ],
        _kept("instance", {}),
    ]
    decision = verdict(decidable, values)
    statement = (
        _EVALUATE.replace("FLAGS", decision.flags).replace("STUDIES", decision.studies).replace("SEEN", decision.seen)
    )
    return {row["id"] for row in await tx.fetch(statement, *values)}


def decided(rule: Rule, untold: Iterable[str]) -> Rule:
    """The rule, or where it names a UID that no answer tells: a DENY of everything, an ALLOW or a LIMIT of nothing."""
    if rule.attribute not in untold:
        return rule
    if rule.effect == "DENY":
        return Rule("DENY", "STUDY", "StudyInstanceUID", "PRESENT", ("true",))
    return Rule(rule.effect, "STUDY", "StudyInstanceUID", "PRESENT", ("false",))


def _kept(table: Table, told: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """As the archive keeps it; an attribute that was not told is one that could not be read."""
    return rule_values(table, ((name, told.get(name)) for name in of_table(table) if not name.endswith("UID")))


def _values(row: Mapping[str, Any], keywords: Iterable[str]) -> dict[str, list[str]]:
    told: dict[str, list[str]] = {}
    for keyword in keywords:
        tag = tag_for_keyword(keyword)
        found = [] if tag is None else _texts(row, f"{tag:08X}")
        if found:
            told[keyword] = found
    return told


def _texts(row: Mapping[str, Any], tag: str) -> list[str]:
    element = row.get(tag)
    values: Any = element.get("Value") if isinstance(element, dict) else None  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    if not isinstance(values, list):
        return []
    return [text for value in values if (text := _text(value))]  # pyright: ignore[reportUnknownVariableType]


def _text(value: Any) -> str:
    if isinstance(value, dict):  # a person name has its component groups apart (PS3.18 F.2.2)
        groups: list[str] = [str(value.get(group) or "") for group in ("Alphabetic", "Ideographic", "Phonetic")]  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        return "=".join(groups).rstrip("=")
    return "" if value is None else str(value)


def _narrowed(row: dict[str, Any], modalities: list[str]) -> dict[str, Any]:
    kept = {tag: element for tag, element in row.items() if tag not in (STUDY_SERIES, STUDY_INSTANCES)}
    return kept | {MODALITIES: {"vr": "CS", "Value": sorted(set(modalities))}}
