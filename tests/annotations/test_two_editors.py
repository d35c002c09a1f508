"""Two editors change the same annotations at random, often from versions that are old by then; a checker reads the history.

An accepted change is exactly one version, made from the version that it named and holding what it asked for; a refused one
left no trace. So nobody's work was overwritten unseen.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from annotomy.annotations.merge import apply_patch
from tests.annotations.conftest import ANNOTATIONS, Team

ANNOTATED = 8
"""Annotations that both change: few, so that they meet."""
EDITORS = ("owner", "other")


@dataclass
class Told:
    """One change and how it was answered. `why` names it in the history."""

    annotation: str
    action: str
    base: int
    why: str
    apply: Callable[[dict[str, Any], Callable[[int], dict[str, Any]]], dict[str, Any]]
    """What the version before becomes; the second argument reads any older version."""
    version: int | None = None


@dataclass
class Editor:
    team: Team
    name: str
    chosen: random.Random
    known: dict[str, int]
    """The version of each annotation that this editor last saw."""
    told: list[Told] = field(default_factory=list[Told])

    async def change(self, number: int) -> None:
        annotation = self.chosen.choice(sorted(self.known))
        base = self.known[annotation]
        why = f"{self.name} {number}"
        action = self.chosen.choices(["edit", "attribute", "batch", "delete", "restore"], [5, 4, 3, 1, 3])[0]
        headers = self.team.people[self.name] | {"If-Match": f'"{base}"'}
        path, client = f"{ANNOTATIONS}/{annotation}", self.team.client
        patch: dict[str, Any] = (
            {"attributes": {self.chosen.choice("ab"): number}} if action == "attribute" else {"description": why}
        )
        told = Told(annotation, action, base, why, lambda before, _: apply_patch(before, patch))
        if action == "batch":
            items = [{"id": annotation, "version": base, "patch": patch | {"why": why}}]
            answer = await client.post(f"{ANNOTATIONS}/batch/edit", json={"items": items}, headers=headers)
            [result] = answer.json()["results"]
            status, body = result["status"], result.get("problem") or result
        elif action == "delete":
            answer = await client.request("DELETE", path, json={"why": why}, headers=headers)
            status, body = answer.status_code, answer.json() if answer.content else {}
            body |= {"version": int(answer.headers.get("ETag", '"0"').strip('"'))} if status == 204 else {}
            told.apply = lambda before, _: before | {"deleted": True}
        elif action == "restore":
            old = self.chosen.randint(1, base)
            answer = await client.post(f"{path}/restore", json={"version": old, "why": why}, headers=headers)
            status, body = answer.status_code, answer.json()
            told.apply = lambda _, version: version(old)
        else:
            answer = await client.patch(path, json=patch | {"why": why}, headers=headers)
            status, body = answer.status_code, answer.json()
        assert status in (200, 204, 404, 412), body
        if status in (200, 204):
            told.version = self.known[annotation] = body["version"]
        elif status == 404:
            self.known[annotation] = body["version"]  # deleted meanwhile: it can be restored
        elif self.chosen.random() < 0.7:  # else they stay with what they know, and come late again
            self.known[annotation] = body["current_version"]
        self.told.append(told)


async def edit_and_check(team: Team, changes: int, seed: int) -> None:
    made = [(await team.create("owner", description="", attributes={}))["id"] for _ in range(ANNOTATED)]
    editors = [Editor(team, name, random.Random(f"{seed} {name}"), dict.fromkeys(made, 1)) for name in EDITORS]  # noqa: S311

    async def work(editor: Editor) -> None:
        for number in range(changes // len(editors)):
            await editor.change(number)

    await asyncio.gather(*map(work, editors))
    told = [one for editor in editors for one in editor.told]
    assert len(told) == changes
    refused = [one for one in told if one.version is None]
    assert refused, "the editors never met: this proves nothing"
    for annotation in made:
        await check_history(team, annotation, [one for one in told if one.annotation == annotation])


async def check_history(team: Team, annotation: str, told: list[Told]) -> None:
    entries = (await team.get(f"/{annotation}/versions", "owner")).json()["items"][::-1]
    versions = [
        (await team.get(f"/{annotation}/versions/{entry['version']}", "owner")).json()["content"] for entry in entries
    ]
    accepted = {one.version: one for one in told if one.version is not None}
    assert len(accepted) == sum(one.version is not None for one in told), "two changes were told the same version"
    assert [entry["version"] for entry in entries] == list(range(1, len(accepted) + 2))
    for number in range(2, len(entries) + 1):
        one, entry = accepted[number], entries[number - 1]
        assert entry["why"] == one.why
        assert one.base == number - 1, "a change was accepted that did not know the version before"
        expected = one.apply(versions[number - 2], lambda version: versions[version - 1] | {"deleted": False})
        for member in ("description", "attributes", "geometry", "deleted"):
            assert versions[number - 1][member] == expected[member], (number, member)
    names = {entry["why"] for entry in entries}
    assert not names & {one.why for one in told if one.version is None}, "a refused change is in the history"


async def test_of_two_editors_nobody_overwrites_what_they_have_not_seen(team: Team) -> None:
    await edit_and_check(team, changes=200, seed=1)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_of_two_editors_nobody_overwrites_in_ten_thousand_changes(team: Team) -> None:
    await edit_and_check(team, changes=10_000, seed=2)
