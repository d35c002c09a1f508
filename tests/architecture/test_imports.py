"""Imports point one way, as ARCHITECTURE.md draws it. This file holds the only copy of the order; the message of a
failure names the offending line.

Everything is read with `ast`: nothing is imported, and an import inside a function counts like one at the top.
"""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE_ROOT = Path(__file__).resolve().parents[2] / "src" / "annotomy"

# From the bottom up. A module imports from its own layer and from layers above it in this list, never from below.
LAYERS: tuple[tuple[str, ...], ...] = (
    ("services", "ports", "actor", "origin", "errors", "settings", "logs"),
    ("db", "blobs", "dicom"),
    ("http",),
    ("jobs",),
    ("audit",),
    ("events",),
    # Features: each may import those before it.
    ("identity",),
    ("projects",),
    ("archive",),
    ("uploads",),
    ("annotations",),
    ("segmentations",),
    ("workitems",),
    ("inference",),
    ("interactive",),
    ("remotes",),
    ("trials",),
    ("reports",),
    ("viewing",),
    ("collaboration",),
    ("search",),
    ("analytics",),
    ("ops",),
    # Protocol edges, then what composes everything.
    ("dicomweb", "dimse"),
    ("app", "worker", "cli", "supervisor", "supervised", "transfer", "demo"),
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}
FEATURES = frozenset(name for name in LEVEL if LEVEL["events"] < LEVEL[name] < LEVEL["dicomweb"])

# Services is the type that composes the storage layers, so that everything above can be handed one value.
UPWARD = {"services": frozenset({"db", "blobs"})}

# Single files that may import one thing from above, each with the reason.
UPWARD_FILES = {
    ("identity/routes.py", "projects.access"): "one's own profile names one's roles; a key's project asks the wall",
}

# Files of features that are protocol although they are not called routes.py.
EDGE_FILES = {"ops/health.py": "probes: nothing but protocol"}

FORBIDDEN_NAMES = frozenset({"utils", "util", "helpers", "common", "core", "manager", "base"})

# Besides settings.py; each with the reason why it is no setting of ours.
ENVIRONMENT_READERS = {
    "settings.py": "owns the environment",
    "supervised.py": "takes what the supervisor hands over, before the settings are read",
    "supervisor.py": "hands its own environment on to the processes that it starts",
    "db/private_server.py": "XDG_RUNTIME_DIR is the operating system's word for where sockets go",
}


@dataclass(frozen=True)
class Import:
    file: Path
    line: int
    module: tuple[str, ...]
    """The parts behind `annotomy.`: ("archive", "store"); the imported name included, as it may be a module."""

    @property
    def importer(self) -> str:
        return self.file.relative_to(PACKAGE_ROOT).parts[0].removesuffix(".py")

    def __str__(self) -> str:
        shown = self.file.relative_to(PACKAGE_ROOT.parents[1])
        return f"{shown}:{self.line} imports annotomy.{'.'.join(self.module)}"


def source_files() -> list[Path]:
    return sorted(PACKAGE_ROOT.rglob("*.py"))


def own_imports() -> Iterator[Import]:
    for file in source_files():
        package = ("annotomy", *file.relative_to(PACKAGE_ROOT).parent.parts)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"), filename=str(file))):
            if isinstance(node, ast.Import):
                names = [tuple(alias.name.split(".")) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                start = package[: len(package) - node.level + 1] if node.level else ()
                origin = (*start, *(node.module.split(".") if node.module else ()))
                names = [(*origin, alias.name) for alias in node.names]
            else:
                continue
            for name in names:
                if name[0] == "annotomy" and len(name) > 1:
                    yield Import(file=file, line=node.lineno, module=name[1:])


def offending(found: list[Import], rule: str) -> str:
    return "\n".join([rule, *(f"  {one}" for one in found)])


def test_every_module_stands_in_the_order() -> None:
    tops = {file.relative_to(PACKAGE_ROOT).parts[0].removesuffix(".py") for file in source_files()}
    unknown = sorted(tops - LEVEL.keys() - {"__init__", "__main__"})
    assert not unknown, f"give these a place in LAYERS of {Path(__file__).name}: {unknown}"


def test_imports_point_downward_only() -> None:
    wrong = [
        one
        for one in own_imports()
        if one.importer in LEVEL
        and one.module[0] in LEVEL
        and LEVEL[one.module[0]] > LEVEL[one.importer]
        and one.module[0] not in UPWARD.get(one.importer, frozenset())
        and (one.file.relative_to(PACKAGE_ROOT).as_posix(), ".".join(one.module[:2])) not in UPWARD_FILES
    ]
    assert not wrong, offending(wrong, "these imports point upward; emit an event or register in app.py:")


def test_dicom_imports_nothing_of_ours() -> None:
    wrong = [one for one in own_imports() if one.importer == "dicom" and one.module[0] != "dicom"]
    assert not wrong, offending(wrong, "dicom/ is pure knowledge and imports nothing of ours:")


def test_features_keep_out_of_each_others_routes_schemas_and_private_names() -> None:
    wrong = [
        one
        for one in own_imports()
        if one.module[0] in FEATURES
        and one.importer != one.module[0]
        and LEVEL[one.importer] < LEVEL["app"]
        and ({"routes", "schemas"} & set(one.module[1:2]) or any(part.startswith("_") for part in one.module))
    ]
    assert not wrong, offending(wrong, "import the other feature's operations or tables instead:")


def test_operations_know_no_web_framework() -> None:
    """Routes, the web kit and the composition know Litestar; what has a domain word in its name does not."""
    wrong: list[str] = []
    for file in source_files():
        parts = file.relative_to(PACKAGE_ROOT).parts
        if parts[0] not in FEATURES or parts[-1].endswith("routes.py") or "/".join(parts) in EDGE_FILES:
            continue
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                named = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                named = [node.module or ""]
            else:
                continue
            frameworks = [name for name in named if name.split(".")[0] in {"litestar", "uvicorn"}]
            wrong += [f"{'/'.join(parts)}:{node.lineno} imports {name}" for name in frameworks]
    assert not wrong, "\n".join(["move the protocol part into routes.py:", *wrong])


def test_no_module_is_named_after_nothing() -> None:
    wrong = [
        str(path.relative_to(PACKAGE_ROOT))
        for path in PACKAGE_ROOT.rglob("*")
        if path.stem in FORBIDDEN_NAMES and (path.is_dir() or path.suffix == ".py")
    ]
    assert not wrong, f"find the name of what these do: {wrong}"


@pytest.mark.parametrize("file", source_files(), ids=lambda file: str(file.relative_to(PACKAGE_ROOT)))
def test_only_settings_read_the_environment(file: Path) -> None:
    if file.relative_to(PACKAGE_ROOT).as_posix() in ENVIRONMENT_READERS:
        return
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        read = (isinstance(node, ast.Attribute) and node.attr in {"environ", "environb", "getenv"}) or (
            isinstance(node, ast.ImportFrom)
            and node.module == "os"
            and any(alias.name in {"environ", "environb", "getenv"} for alias in node.names)
        )
        if read:
            line = getattr(node, "lineno", 0)
            pytest.fail(f"{file.relative_to(PACKAGE_ROOT)}:{line} reads the environment; add a setting to settings.py")
