"""Log lines: one JSON object each, and no value that an exception quotes."""

import json
import sys

import pytest

from annotomy.logs import _render, _where_it_failed  # pyright: ignore[reportPrivateUsage]


def raised() -> BaseException:
    found: BaseException = AssertionError("nothing was raised")
    try:
        try:
            int("Kim^Younghee")
        except ValueError as error:
            raise KeyError("Kim^Younghee") from error
    except KeyError as error:
        found = error
    return found


@pytest.mark.parametrize("form", ["instance", "tuple"])
def test_an_exception_is_told_by_types_and_places_alone(form: str) -> None:
    error = raised()
    given = error if form == "instance" else (type(error), error, error.__traceback__)
    line = json.loads(_render(None, "error", _where_it_failed(None, "error", {"event": "x", "exc_info": given})))
    assert "Younghee" not in json.dumps(line)
    assert [one.split(" < ")[0] for one in line["exception"]] == ["KeyError", "ValueError"]
    assert "test_logs.py" in line["exception"][0]
    assert "raised" in line["exception"][0]


def test_the_exception_being_handled_is_told() -> None:
    try:
        raise OSError("secret")  # noqa: TRY301 - what is being handled is the subject
    except OSError:
        line = _render(None, "error", _where_it_failed(None, "error", {"event": "x", "exc_info": True}))
    assert "OSError" in line
    assert "secret" not in line
    assert sys.exc_info()[1] is None
