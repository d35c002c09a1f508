"""An editor that may be killed at any moment: it edits one annotation again and again, and goes on where its journal ends.

`python -m tests.crash.annotation_editor ADDRESS ANNOTATION_ID JOURNAL LAST`. The journal has a line before each edit is sent
(`sent NUMBER VERSION`) and one when it was accepted (`accepted NUMBER VERSION`); an edit is sent again under the same
Idempotency-Key until it is answered.
"""

import os
import sys
import time
from pathlib import Path

import httpx

from tests.support.serve import ADMIN

PATIENCE_S = 240
PAUSE_S = 0.05


def main(address: str, annotation_id: str, journal: Path, last: int) -> None:
    entries = read_journal(journal)
    accepted = {number: version for what, number, version in entries if what == "accepted"}
    sent = {number: version for what, number, version in entries if what == "sent"}
    lines = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    editor = Editor(address)
    version = max(accepted.values(), default=1)
    for number in range(1, last + 1):
        if number in accepted:
            continue
        if number not in sent:
            os.write(lines, f"sent {number} {version}\n".encode())
        version = editor.edit(annotation_id, number, sent.get(number, version))
        os.write(lines, f"accepted {number} {version}\n".encode())


def read_journal(journal: Path) -> list[tuple[str, int, int]]:
    text = journal.read_text() if journal.exists() else ""
    lines = [line.split() for line in text.splitlines()]
    return [(what, int(number), int(version)) for what, number, version in lines]


class Editor:
    def __init__(self, address: str) -> None:
        self._client = httpx.Client(base_url=address, timeout=30)
        self._headers: dict[str, str] = {}

    def edit(self, annotation_id: str, number: int, version: int) -> int:
        """The version that the edit became."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            assert time.monotonic() < deadline, "the server does not come back"
            try:
                answer = self._client.patch(
                    f"/api/v1/annotations/{annotation_id}",
                    json={"description": f"edit {number}", "why": f"edit {number}"},
                    headers=self._headers | {"If-Match": f'"{version}"', "Idempotency-Key": f"edit-{number}"},
                )
                if answer.status_code == 200:
                    return int(answer.json()["version"])
                if answer.status_code == 401:
                    self._sign_in()
                    continue
                # 409: the first request under this key has not ended yet.
                assert answer.status_code >= 500 or answer.status_code in (409, 429), answer.text
            except httpx.TransportError:
                pass
            time.sleep(PAUSE_S)

    def _sign_in(self) -> None:
        answer = self._client.post("/api/v1/auth/token", json={"username": ADMIN[0], "password": ADMIN[1]})
        if answer.status_code == 200:
            self._headers = {"Authorization": f"Bearer {answer.json()['access_token']}"}


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
