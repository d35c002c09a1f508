"""What the rules mean, written a second time in plain Python: over objects in memory, with sets, without SQL."""

from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from annotomy.projects.attributes import ATTRIBUTES, normalised


@dataclass(frozen=True)
class Instance:
    study: str
    series: str
    sop: str
    attributes: dict[str, list[str]] = field(hash=False)
    unreadable: frozenset[str] = frozenset()
    """Attributes that the file has, in a form that nobody can compare."""


@dataclass(frozen=True)
class Policy:
    """One rule as it was sent."""

    effect: str
    level: str
    attribute: str
    operator: str
    value: object
    role: str | None = None
    user_id: UUID | None = None
    valid_from: datetime | None = None
    expires_at: datetime | None = None


@dataclass
class Project:
    held: set[tuple[str, str | None, str | None]]
    """(study, series, instance): whole studies, whole series, single instances."""
    rules: list[Policy]
    role: str
    """Of the person that is asked about."""
    reads: bool
    valid: bool
    id: str = ""


def sees(person: UUID, projects: list[Project], archive: list[Instance], one: Instance, now: datetime) -> bool:
    return any(sees_in(person, project, archive, one, now) for project in projects)


def sees_in(person: UUID, project: Project, archive: list[Instance], one: Instance, now: datetime) -> bool:
    places = {(one.study, None, None), (one.study, one.series, None), (one.study, one.series, one.sop)}
    if not (project.valid and project.reads and project.held & places):
        return False
    if not project.rules:
        return True
    mine = [
        rule
        for rule in project.rules
        if rule.role in (None, project.role)
        and rule.user_id in (None, person)
        and (rule.valid_from is None or rule.valid_from <= now)
        and (rule.expires_at is None or rule.expires_at > now)
    ]
    matching = {rule.effect for rule in mine if _holds(rule, archive, one)}
    if "DENY" in matching:
        return False
    if any(rule.effect == "LIMIT" for rule in mine) and "LIMIT" not in matching:
        return False
    return "ALLOW" in matching


def _holds(rule: Policy, archive: list[Instance], one: Instance) -> bool:
    """What cannot be told hides."""
    told = _matches(rule, archive, one)
    return rule.effect == "DENY" if told is None else told


def _matches(rule: Policy, archive: list[Instance], one: Instance) -> bool | None:
    """None where an unreadable value may decide either way. Its file may say anything there, or nothing."""
    found = _found(rule, archive, one)
    negated = rule.operator == "NE" or (rule.operator == "PRESENT" and not rule.value)
    if not found and any(rule.attribute in other.unreadable for other in _within(rule, archive, one)):
        return None
    return found != negated


def _within(rule: Policy, archive: list[Instance], one: Instance) -> list[Instance]:
    if rule.level == "STUDY":
        return [other for other in archive if other.study == one.study]
    if rule.level == "SERIES":
        return [other for other in archive if other.series == one.series]
    return [one]


def _found(rule: Policy, archive: list[Instance], one: Instance) -> bool:
    """Whether a value is there that the operator, or what it negates, asks for. The values are those of everything in the object that the rule looks at: the study, the series, the instance."""
    values = {
        text
        for other in _within(rule, archive, one)
        for raw in other.attributes.get(rule.attribute, [])
        if (text := normalised(rule.attribute, raw))
    }

    def term(value: object) -> str:
        return normalised(rule.attribute, str(value))

    match rule.operator:
        case "PRESENT":
            return bool(values)
        case "EQ" | "NE":
            return term(rule.value) in values
        case "CONTAINS":
            return any(term(rule.value) in value for value in values)
        case "IN":
            assert isinstance(rule.value, list)
            return bool(values & {term(value) for value in rule.value})
        case "RANGE":
            assert isinstance(rule.value, list)
            low, high = (term(bound) if bound else "" for bound in rule.value)
            return any((not low or value >= low) and (not high or value <= high) for value in values)
        case _:
            raise AssertionError(rule.operator)


assert set(ATTRIBUTES) >= {"Modality", "StudyDate", "PatientID", "SOPClassUID"}
