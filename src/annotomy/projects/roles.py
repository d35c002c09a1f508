"""Permissions and the roles made of them. `roles.toml` is the one list; this module reads it and says what includes what."""

import tomllib
from collections.abc import Collection
from enum import StrEnum
from importlib.resources import files
from typing import Literal

import msgspec


class Permission(StrEnum):
    STUDY_READ = "study.read"
    STUDY_STORE = "study.store"
    STUDY_ASSIGN = "study.assign"
    STUDY_SHARE = "study.share"
    STUDY_EXPORT = "study.export"
    STUDY_DELETE = "study.delete"
    ANNOTATION_WRITE = "annotation.write"
    ANNOTATION_READ = "annotation.read"
    """At least one's own; use `require_own_or_all` or `visible_work` for which."""
    SEGMENTATION_WRITE = "segmentation.write"
    SEGMENTATION_READ = "segmentation.read"
    REVIEW = "review"
    ADJUDICATE = "adjudicate"
    MODEL_RUN = "model.run"
    WORKITEM_SCHEDULE = "workitem.schedule"
    WORKITEM_PERFORM = "workitem.perform"
    REMOTE_QUERY = "remote.query"
    REMOTE_RETRIEVE = "remote.retrieve"
    REMOTE_PUSH = "remote.push"
    PROJECT_MANAGE = "project.manage"
    AUDIT_READ = "audit.read"
    USER_MANAGE = "user.manage"
    SYSTEM_MANAGE = "system.manage"


PERMISSION_NAMES = frozenset(permission.value for permission in Permission)


class Label(msgspec.Struct, frozen=True):
    en: str
    ko: str
    key: Literal["read", "write", "admin"]
    """The coarse scope of API keys that reaches the permission."""
    scope: str = "project"


class RoleEntry(msgspec.Struct, frozen=True):
    en: str
    ko: str
    permissions: list[str]
    scope: str = "project"


class _File(msgspec.Struct, frozen=True):
    permissions: dict[str, Label]
    roles: dict[str, RoleEntry]


def _read() -> _File:
    text = files("annotomy.projects").joinpath("roles.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _File)


_file = _read()
PERMISSIONS: dict[str, Label] = _file.permissions
ROLE_ENTRIES: dict[str, RoleEntry] = _file.roles
"""In the order in which people are shown them."""
SCOPE_NAMES = PERMISSION_NAMES | PERMISSIONS.keys()
"""What an API key may be narrowed to, beside `read`, `write` and `admin`."""
ROLES: dict[str, frozenset[str]] = {name: frozenset(entry.permissions) for name, entry in ROLE_ENTRIES.items()}


def holds(held: Collection[str], permission: str) -> bool:
    """`x.all` includes `x.own`, and each of them `x`."""
    if permission in held:
        return True
    if permission.endswith(".own"):
        return permission.removesuffix(".own") + ".all" in held
    return f"{permission}.own" in held or f"{permission}.all" in held


def in_scope(scopes: Collection[str] | None, permission: str) -> bool:
    """Whether the scopes of an API key reach a permission: by its name, or by `read`, `write` or `admin`; None reaches all."""
    return scopes is None or holds(scopes, permission) or _coarse(permission) in scopes


def _coarse(permission: str) -> str:
    entry = PERMISSIONS.get(permission) or PERMISSIONS.get(f"{permission}.all")
    assert entry is not None, f"roles.toml lacks the permission {permission}"
    return entry.key
