"""Finding, owning and ending PostgreSQL's processes: pid file, working folder, pidfd, the unprivileged user.

A pid alone proves nothing (a container reuses the same ones at each start): a process is ours when its working folder is
our cluster. Signals go through a pidfd, so that they never reach a process that took over the number.
"""

import os
import pwd
import select
import signal
import stat
import time
from dataclasses import dataclass
from pathlib import Path

from annotomy.db.private_binaries import PrivateServerError

UNPRIVILEGED_USERS = ("annotomy", "postgres", "nobody")
"""Tried in this order when started as root; `nobody` last, because other services may share it."""

FAST_STOP_TIMEOUT_S = 20.0
"""SIGINT disconnects clients and writes a checkpoint; after this long the stop becomes SIGQUIT (recovery at next start)."""

IMMEDIATE_STOP_TIMEOUT_S = 10.0
"""The postmaster itself kills its children 5 s after SIGQUIT."""

ORPHAN_TIMEOUT_S = 5.0
"""A backend that is busy without its postmaster gets this long to end by SIGTERM before SIGKILL."""


@dataclass(frozen=True)
class Owner:
    """The user that PostgreSQL runs as."""

    uid: int
    gid: int

    # What a child process must switch to; None leaves it as it is, since only root can switch.
    @property
    def switch_uid(self) -> int | None:
        return self.uid if os.geteuid() == 0 else None

    @property
    def switch_gid(self) -> int | None:
        return self.gid if os.geteuid() == 0 else None

    @property
    def switch_groups(self) -> list[int] | None:
        return [] if os.geteuid() == 0 else None

    def can_enter(self, folder: Path) -> bool:
        """Whether every folder above is open to it (access control lists do not count)."""
        for above in folder.parents:
            entry = above.stat()
            bit = (
                stat.S_IXUSR if entry.st_uid == self.uid else stat.S_IXGRP if entry.st_gid == self.gid else stat.S_IXOTH
            )
            if not entry.st_mode & bit:
                return False
        return True


def choose_owner(cluster: Path, user: str | None) -> Owner:
    """The owner of an existing cluster, else (as root) the named user or the first of UNPRIVILEGED_USERS, else oneself."""
    if cluster.is_dir():
        entry = cluster.stat()
        if os.geteuid() not in (0, entry.st_uid):
            raise PrivateServerError(
                f"The database in {cluster} belongs to user id {entry.st_uid}, but this process runs as {os.geteuid()}. "
                "Start Annotomy as that user (or as root)."
            )
        return Owner(entry.st_uid, entry.st_gid)
    if os.geteuid() != 0:
        try:
            pwd.getpwuid(os.geteuid())
        except KeyError:
            raise PrivateServerError(
                f"User id {os.geteuid()} has no entry in /etc/passwd, which PostgreSQL's initdb needs. Add one (container "
                "images: write the line at start), or set ANNOTOMY_DATABASE_URL."
            ) from None
        return Owner(os.geteuid(), os.getegid())
    for name in [user] if user else UNPRIVILEGED_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        if entry.pw_uid != 0:
            return Owner(entry.pw_uid, entry.pw_gid)
    raise PrivateServerError(
        f"PostgreSQL does not run as root, and there is no user {user or ', '.join(UNPRIVILEGED_USERS)}. Create one: "
        "useradd --system annotomy"
    )


@dataclass(frozen=True)
class PidFile:
    """What `postmaster.pid` says. A killed server leaves it behind saying `ready`: believe it only about a live pid."""

    pid: int
    socket_folder: str
    status: str

    @classmethod
    def read(cls, cluster: Path) -> "PidFile | None":
        try:
            lines = (cluster / "postmaster.pid").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return None
        if not lines or not lines[0].strip().isdigit():
            return None
        return cls(
            pid=int(lines[0]),
            socket_folder=lines[4].strip() if len(lines) > 4 else "",
            status=lines[7].strip() if len(lines) > 7 else "starting",
        )


def works_in(pid: int, cluster: Path) -> bool:
    """Whether this live process has the cluster as its working folder."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == cluster.resolve()
    except OSError:
        return False


def processes_in(cluster: Path) -> list[int]:
    """Every process of the cluster that this user may see."""
    pids = (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [pid for pid in pids if works_in(pid, cluster)]


def stop_postmaster(pid: int, cluster: Path) -> None:
    """Fast stop (never SIGTERM, which waits for the clients for ever); returns when the process is gone."""
    for number, timeout_s in (
        (signal.SIGINT, FAST_STOP_TIMEOUT_S),
        (signal.SIGQUIT, IMMEDIATE_STOP_TIMEOUT_S),
        (signal.SIGKILL, ORPHAN_TIMEOUT_S),
    ):
        if end_process(pid, cluster, number, timeout_s):
            return
    raise PrivateServerError(f"PostgreSQL (process {pid}) does not end, not even by SIGKILL; is its disk stuck?")


def end_orphans(cluster: Path) -> None:
    """Ends the processes that a killed postmaster left; they hold its shared memory, so that no new one could start."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + ORPHAN_TIMEOUT_S
        for pid in processes_in(cluster):
            end_process(pid, cluster, number, timeout_s=0)
        for pid in processes_in(cluster):
            end_process(pid, cluster, 0, timeout_s=max(0.0, deadline - time.monotonic()))


def end_process(pid: int, cluster: Path, number: int, timeout_s: float) -> bool:
    """Signals the process if it is the cluster's and waits; True when it is gone (or never was ours)."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        if not works_in(pid, cluster):
            return True
        if number:
            signal.pidfd_send_signal(descriptor, number)
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(timeout_s * 1000))
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)
