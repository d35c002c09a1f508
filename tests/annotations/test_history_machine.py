"""Several people create, edit, delete, restore and review in any order, as a plain Python model does: nothing is ever lost.

The model keeps the list of contents of each annotation. After each step the server's history is the model's, version for
version, and the sequence has no gap.
"""

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.annotations.conftest import ANNOTATIONS, Team

AUTHORS = st.sampled_from(["owner", "other"])
TEXT = st.text("ab", max_size=3)


class Known:
    """What the model knows of one annotation: every content in order, the state, who drew it."""

    def __init__(self, annotation: dict[str, Any], author: str) -> None:
        self.id: str = annotation["id"]
        self.author = author
        self.contents: list[tuple[str, str | None]] = [(annotation["description"], annotation["label"])]
        self.actions = ["create"]
        self.state = "draft"
        self.deleted = False

    @property
    def version(self) -> int:
        return len(self.contents)

    @property
    def content(self) -> tuple[str, str | None]:
        return self.contents[-1]

    def goes_on(self, action: str, content: tuple[str, str | None], state: str, *, deleted: bool = False) -> None:
        self.actions.append(action)
        self.contents.append(content)
        self.state, self.deleted = state, deleted


def machine_of(team: Team, loop: asyncio.AbstractEventLoop) -> type[RuleBasedStateMachine]:
    """A state machine over one running application; each example draws annotations of its own."""

    def wait(answer: Any) -> httpx.Response:
        return asyncio.run_coroutine_threadsafe(answer, loop).result(60)

    class History(RuleBasedStateMachine):
        @initialize(author=AUTHORS, description=TEXT)
        def first(self, author: str, description: str) -> None:
            self.known: list[Known] = []
            self.touched: set[int] = set()
            self.create(author, description)

        @rule(author=AUTHORS, description=TEXT)
        def create(self, author: str, description: str) -> None:
            made: Any = wait(team.create(author, description=description))
            self.known.append(Known(made, author))
            self.touched = {len(self.known) - 1}

        def pick(self, number: int) -> Known:
            self.touched = {number % len(self.known)}
            return self.known[number % len(self.known)]

        @rule(n=st.integers(0, 9), who=AUTHORS, label=st.sampled_from(["x", "y", None]), stale=st.integers(0, 2))
        def edit(self, n: int, who: str, label: str | None, stale: int) -> None:
            one = self.pick(n)
            version = max(1, one.version - stale)
            answer = wait(team.patch({"id": one.id, "version": version}, {"label": label}, who))
            if version != one.version:
                assert answer.status_code == 412
                assert answer.json()["current_version"] == one.version
            elif one.deleted:
                assert answer.status_code == 404
            elif one.state == "approved":
                assert answer.status_code == 409
            else:
                assert answer.status_code == 200, answer.text
                one.goes_on("edit", (one.content[0], label), "draft")

        @rule(n=st.integers(0, 9), who=AUTHORS)
        def delete(self, n: int, who: str) -> None:
            one = self.pick(n)
            headers = team.people[who] | {"If-Match": f'"{one.version}"'}
            answer = wait(team.client.delete(f"{ANNOTATIONS}/{one.id}", headers=headers))
            if one.deleted:
                assert answer.status_code == 404
            elif one.state == "approved":
                assert answer.status_code == 409
            else:
                assert answer.status_code == 204
                one.goes_on("delete", one.content, one.state, deleted=True)

        @rule(n=st.integers(0, 9), who=AUTHORS, version=st.integers(1, 6))
        def restore(self, n: int, who: str, version: int) -> None:
            one = self.pick(n)
            path = f"{ANNOTATIONS}/{one.id}/restore"
            answer = wait(team.client.post(path, json={"version": version}, headers=team.people[who]))
            if one.state == "approved":
                assert answer.status_code == 409
            elif version > one.version:
                assert answer.status_code == 404
            else:
                assert answer.status_code == 200, answer.text
                one.goes_on("restore", one.contents[version - 1], "draft")

        @rule(n=st.integers(0, 9), step=st.sampled_from(["submit", "approve", "reject", "reopen"]))
        def review(self, n: int, step: str) -> None:
            one = self.pick(n)
            who = one.author if step == "submit" else "reviewer"
            answer = wait(team.step({"id": one.id, "version": one.version}, step, who))
            allowed = {
                "submit": ("draft", "rejected"), "approve": ("submitted",), "reject": ("submitted",),
                "reopen": ("submitted", "approved", "rejected"),
            }  # fmt: skip
            if one.deleted:
                assert answer.status_code == 404
            elif one.state not in allowed[step]:
                assert answer.status_code == 409
            else:
                assert answer.status_code == 200, answer.text
                state = {"submit": "submitted", "approve": "approved", "reject": "rejected", "reopen": "draft"}[step]
                one.goes_on(step, one.content, state)

        @invariant()
        def history_is_complete_and_in_order(self) -> None:
            for number in self.touched:
                one = self.known[number]
                entries = wait(team.get(f"/{one.id}/versions", "viewer")).json()["items"][::-1]
                assert [entry["version"] for entry in entries] == list(range(1, one.version + 1))
                assert [entry["action"] for entry in entries] == one.actions
                newest: Any = wait(team.get(f"/{one.id}/versions/{one.version}", "viewer")).json()["content"]
                assert (newest["description"], newest["label"]) == one.content
                assert (newest["state"], newest["deleted"]) == (one.state, one.deleted)
                standing = wait(team.get(f"/{one.id}", "viewer"))
                assert standing.status_code == (404 if one.deleted else 200)

        def teardown(self) -> None:
            for one in self.known:
                for version, content in enumerate(one.contents, start=1):
                    found: Any = wait(team.get(f"/{one.id}/versions/{version}", "viewer")).json()["content"]
                    assert (found["description"], found["label"]) == content

    return History


async def run_machine(team: Team, examples: int, steps: int) -> None:
    chosen = settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        derandomize=True,
    )  # fmt: skip
    machine = machine_of(team, asyncio.get_running_loop())
    await asyncio.to_thread(run_state_machine_as_test, machine, settings=chosen)


async def test_no_version_is_ever_lost(team: Team) -> None:
    await run_machine(team, examples=8, steps=15)


@pytest.mark.long
@pytest.mark.timeout(3600)
async def test_no_version_is_ever_lost_in_many_histories(team: Team) -> None:
    await run_machine(team, examples=200, steps=50)


async def test_two_editors_never_overwrite_each_other(team: Team) -> None:
    """Each appends to the text that they read, and reads anew when they were late: every accepted word is in the end."""
    made = await team.create(description="")
    accepted: list[str] = []

    async def edit(who: str) -> None:
        standing = made
        for n in range(15):
            word = f"{who}{n}"
            answer = await team.patch(standing, {"description": f"{standing['description']} {word}"}, who)
            if answer.status_code == 200:
                accepted.append(word)
                standing = answer.json()
            else:
                assert answer.status_code == 412
                standing = answer.json()["current"]

    await asyncio.gather(edit("annotator"), edit("other"))
    end = (await team.get(f"/{made['id']}")).json()
    assert sorted(end["description"].split()) == sorted(accepted)
    assert end["version"] == len(accepted) + 1
