"""Merge patches (RFC 7396), what differs between two versions, and the three-way merge of a lost race. Pure.

`content` is what a version holds, as plain JSON. Members are merged one by one; a geometry is one member, since half a
shape from each of two people is a shape that nobody drew. Attributes are merged one by one as well.
"""

from typing import Any

Content = dict[str, Any]

EDITABLE = ("kind", "geometry", "label", "attributes", "measurements", "description")
"""What a person may change; the rest of an annotation is its identity, or follows from these."""


def apply_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged: dict[str, Any] = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = apply_patch(merged.get(name), value)
    return merged


def members(content: Content) -> dict[str, Any]:
    """The editable members by path; each attribute is one of its own."""
    found = {name: content.get(name) for name in EDITABLE if name not in ("attributes", "measurements")}
    found["description"] = content.get("description") or None
    # What the server measured follows from the geometry: nobody edits it.
    found["measurements"] = [one for one in content.get("measurements") or () if one.get("source") != "server"]
    for name, value in (content.get("attributes") or {}).items():
        found[f"attributes.{name}"] = value
    return found


def changed_members(before: Content, after: Content) -> list[str]:
    old, new = members(before), members(after)
    return [name for name in {**old, **new} if old.get(name) != new.get(name)]


def difference(before: Content, after: Content) -> list[dict[str, Any]]:
    """Every top-level member or attribute that differs, with both values."""
    old = _flat(before)
    new = _flat(after)
    return [
        {"member": name, "before": old.get(name), "after": new.get(name)}
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    ]


def three_way(base: Content, current: Content, mine: Content) -> tuple[dict[str, Any], list[str]]:
    """What of `mine` to put upon `current`, as a merge patch, and the members that both changed differently."""
    theirs, ours, now = set(changed_members(base, current)), changed_members(base, mine), members(current)
    wanted = members(mine)
    patch: dict[str, Any] = {}
    conflicts: list[str] = []
    for name in ours:
        if name in theirs and now.get(name) != wanted.get(name):
            conflicts.append(name)
        elif now.get(name) != wanted.get(name):
            _put(patch, name, _as_patch(now.get(name), wanted.get(name)))
    return patch, conflicts


def _flat(content: Content) -> dict[str, Any]:
    flat = {name: value for name, value in content.items() if name != "attributes"}
    return flat | {f"attributes.{name}": value for name, value in (content.get("attributes") or {}).items()}


def _as_patch(now: Any, wanted: Any) -> Any:
    """The merge patch that turns `now` into `wanted`: members that go are null."""
    if not isinstance(now, dict) or not isinstance(wanted, dict):
        return wanted
    patch = {name: None for name in now if name not in wanted}
    return patch | {n: _as_patch(now.get(n), value) for n, value in wanted.items() if now.get(n) != value}


def _put(patch: dict[str, Any], path: str, value: Any) -> None:
    name, _, attribute = path.partition(".")
    if attribute:
        patch.setdefault("attributes", {})[attribute] = value
    else:
        patch[name] = value
