"""Writes docs/reference/{settings,commands,problems,http,roles,rules}.md from the code, in one place for everyone who looks things up.

`python tools/reference.py` writes; `--check` compares, names what differs and exits 1.
"""

import ast
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, cast, get_args

import click

import annotomy
from annotomy import cli
from annotomy.errors import Problem

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs" / "reference"
NOTE = "<!-- Written by tools/reference.py from the code. Change the code, then run: .venv/bin/python tools/reference.py -->"


def settings_page() -> str:
    """Each attribute of a settings class says its variable, its meaning and its default in the text below it."""
    lines = [
        NOTE,
        "# Settings",
        "",
        "Annotomy reads its environment once, at the start. Every default gives a working single machine.",
        "",
        "| variable | meaning | setting |",
        "|---|---|---|",
    ]
    tree = ast.parse((ROOT / "src/annotomy/settings.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if not isinstance(node, ast.ClassDef):
            continue
        section = "" if node.name == "Settings" else node.name.removesuffix("Settings").lower() + "."
        for attribute, text in zip(node.body, node.body[1:], strict=False):
            if isinstance(attribute, ast.AnnAssign) and isinstance(text, ast.Expr):
                sentence = " ".join(str(ast.literal_eval(text.value)).split())
                variable, _, meaning = sentence.partition(": ")
                variable, _, given = variable.partition("=")
                meaning = f"{given}: {meaning}" if given else meaning
                name = f"{section}{ast.unparse(attribute.target)}"
                lines.append(f"| `{variable}` | {_cell(meaning)} | `{name}` |")
    return "\n".join(lines) + "\n"


def commands_page() -> str:
    lines = [
        NOTE,
        "# Commands",
        "",
        "`./run cli COMMAND` runs them inside the environment of a clone; an installed package has `annotomy COMMAND`.",
        "",
    ]
    for path, command in _commands(cli.main, ["annotomy"]):
        context = click.Context(command, info_name=" ".join(path))
        lines += [f"## {' '.join(path)}", "", "```text", command.get_help(context), "```", ""]
    return "\n".join(lines)


def _commands(command: click.Command, path: list[str]) -> Iterator[tuple[list[str], click.Command]]:
    if isinstance(command, click.Group):
        for name in sorted(command.commands):
            yield from _commands(command.commands[name], [*path, name])
    else:
        yield path, command


def problems_page() -> str:
    lines = [
        NOTE,
        "# Problems",
        "",
        "Every error is `application/problem+json` (RFC 9457); its `type` ends in the slug below and never changes.",
        "",
        "| slug | status | what happened and what helps | raised in |",
        "|---|---|---|---|",
    ]
    _import_everything(annotomy)
    found = {problem.slug: problem for problem in _subclasses(Problem)}
    for slug, problem in sorted(found.items()):
        text = " ".join((inspect.getdoc(problem) or "").split())
        lines.append(
            f"| `{slug}` | {problem.status} | {_cell(problem.title)}. {_cell(text)} | `{problem.__module__}` |"
        )
    return "\n".join(lines) + "\n"


def _import_everything(package: ModuleType) -> None:
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if ".migrations" not in module.name and not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _subclasses(of: type[Problem]) -> Iterator[type[Problem]]:
    for one in of.__subclasses__():
        yield one
        yield from _subclasses(one)


def http_page() -> str:
    """The routes that the application registers, each with the file that answers."""
    from annotomy import app as application

    lines = [
        NOTE,
        "# HTTP paths",
        "",
        "Bodies and answers are in `/api/v1/openapi.json`; `/docs` shows them. This list says which file answers.",
        "",
        "| method | path | answers |",
        "|---|---|---|",
    ]
    lite = application.create_app(cast("Any", None))
    rows = {
        (path, method, handler.fn.__module__.replace(".", "/") + ".py")
        for route in lite.routes
        for path, handler, methods in _handlers(route)
        for method in methods
        if handler.fn.__module__.startswith("annotomy.")
    }
    lines += [f"| {method} | `{path}` | `src/{file}` |" for path, method, file in sorted(rows)]
    return "\n".join(lines) + "\n"


def roles_page() -> str:
    """Permissions by role, as projects/roles.toml says."""
    from annotomy.projects.roles import PERMISSIONS, ROLE_ENTRIES

    lines = [
        NOTE,
        "# Roles",
        "",
        "Written from `src/annotomy/projects/roles.toml`. `.own` reaches what one made oneself, `.all` what anybody made.",
        "",
        "| role | | 한국어 | permissions |",
        "|---|---|---|---|",
    ]
    for name, role in ROLE_ENTRIES.items():
        held = ", ".join(f"`{one}`" for one in role.permissions)
        lines.append(f"| `{name}` | {_cell(role.en)} | {_cell(role.ko)} | {held} |")
    lines += ["", "| permission | | 한국어 | scope of API keys |", "|---|---|---|---|"]
    lines += [f"| `{name}` | {_cell(one.en)} | {_cell(one.ko)} | `{one.key}` |" for name, one in PERMISSIONS.items()]
    return "\n".join(lines) + "\n"


_EFFECTS = {
    "ALLOW": "what it matches is seen, unless LIMIT or DENY say otherwise",
    "LIMIT": "of what is allowed, only what a LIMIT matches is seen",
    "DENY": "what it matches is not seen, whatever else is said",
}
_OPERATORS = {
    "EQ": "a value of the attribute is `value`",
    "NE": "the negation of EQ, also where the attribute is missing",
    "CONTAINS": "a value contains `value`",
    "RANGE": "a value lies between the two of `value`, both included; dates, ages and numbers by their order",
    "IN": "a value is one of `value`",
    "PRESENT": "the attribute has a value (`true`) or none (`false`)",
}
_LEVELS = {
    "STUDY": "decides about the whole study",
    "SERIES": "decides about each series by itself",
    "INSTANCE": "decides about each instance by itself",
}


def rules_page() -> str:
    """What a rule of a project may be made of. A word that the code knows and that is not explained here is a KeyError."""
    from annotomy.projects.attributes import ATTRIBUTES
    from annotomy.projects.visibility import Effect, Level, Operator

    lines = [NOTE, "# Rules", "", "Together they mean what [access](../explanation/access.md) says."]
    for title, words, told in (
        ("effect", get_args(Effect), _EFFECTS),
        ("level", get_args(Level), _LEVELS),
        ("operator", get_args(Operator), _OPERATORS),
    ):
        lines += ["", f"| {title} | means |", "|---|---|", *(f"| `{word}` | {told[word]} |" for word in words)]
    lines += ["", "| attribute | of each | compared as |", "|---|---|---|"]
    lines += [f"| `{name}` | {one.table} | {one.kind} |" for name, one in ATTRIBUTES.items()]
    return "\n".join(lines) + "\n"


def _handlers(route: Any) -> Iterator[tuple[str, Any, list[str]]]:
    handlers = getattr(route, "route_handlers", None) or [route.route_handler]
    for handler in handlers:
        methods = sorted(set(getattr(handler, "http_methods", ["ASGI"])) - {"OPTIONS"})
        yield str(route.path_format), handler, methods


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def main() -> int:
    pages = {
        "settings.md": settings_page(),
        "commands.md": commands_page(),
        "problems.md": problems_page(),
        "http.md": http_page(),
        "roles.md": roles_page(),
        "rules.md": rules_page(),
    }
    behind = [
        name
        for name, text in pages.items()
        if not (PAGES / name).is_file() or (PAGES / name).read_text(encoding="utf-8") != text
    ]
    if "--check" in sys.argv[1:]:
        for name in behind:
            print(f"docs/reference/{name} is out of step with the code: run .venv/bin/python tools/reference.py")
        return 1 if behind else 0
    PAGES.mkdir(parents=True, exist_ok=True)
    for name in behind:
        (PAGES / name).write_text(pages[name], encoding="utf-8")
        print(f"wrote docs/reference/{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
