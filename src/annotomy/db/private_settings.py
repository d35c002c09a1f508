"""The private server's configuration: safe everywhere, sized by the machine; `test` gives durability away for speed.

Which value has which reason stands in `docs/operations/postgres.md`.
"""

import os
import subprocess
from pathlib import Path
from typing import Literal

from annotomy.db.private_binaries import Binaries

Profile = Literal["durable", "test"]

SERVER_MEMORY_GIB = 16
"""From this much memory (and more than two cores) the machine counts as a server; below, PostgreSQL stays small."""

SHARED_MEMORY_NEEDED_BYTES = 256 * 2**20
"""Parallel queries put their tables into /dev/shm; containers give it 64 MB by default, where they would fail."""

# Programs connect through the socket with a password; nothing listens on the network.
HOST_BASED_AUTHENTICATION = "local all all scram-sha-256\n"


def configuration(binaries: Binaries, profile: Profile, *, log_folder: Path, socket_folder: Path) -> str:
    """The text of postgresql.conf."""
    settings: dict[str, str | int] = {
        "listen_addresses": "",
        "port": 5432,
        "unix_socket_directories": str(socket_folder),
        "unix_socket_permissions": "0700",
        "password_encryption": "scram-sha-256",
        "jit": "off",
        "random_page_cost": "1.1",
        # GMT is UTC by the one name that PostgreSQL knows without a time zone database on the machine.
        "timezone": "GMT",
        "log_timezone": "GMT",
        "lc_messages": "C",
        "dynamic_shared_memory_type": "posix",
        "checkpoint_timeout": "15min",
        "client_connection_check_interval": "10s",
        "log_line_prefix": "%m [%p] ",
        "log_min_duration_statement": "500ms",
        # Parameters are patient data.
        "log_parameter_max_length": 0,
        "log_parameter_max_length_on_error": 0,
    }
    settings |= _sizes()
    settings |= _test() if profile == "test" else _durable(log_folder)
    if binaries.major >= 15 and _with_lz4(binaries):
        settings["wal_compression"] = "lz4"
    if any(binaries.folder.parent.rglob("pg_stat_statements.so")):
        settings["shared_preload_libraries"] = "pg_stat_statements"
    shared_memory = os.statvfs("/dev/shm") if Path("/dev/shm").is_dir() else None  # noqa: S108
    if shared_memory is None or shared_memory.f_blocks * shared_memory.f_frsize < SHARED_MEMORY_NEEDED_BYTES:
        settings["max_parallel_workers_per_gather"] = 0
        settings["dynamic_shared_memory_type"] = "mmap"
    lines = [f"{name} = {_quoted(value)}" for name, value in sorted(settings.items())]
    return "# Written by Annotomy at each start; changes here are lost.\n" + "\n".join(lines) + "\n"


def _durable(log_folder: Path) -> dict[str, str | int]:
    return {
        "fsync": "on",
        "synchronous_commit": "on",
        "full_page_writes": "on",
        "logging_collector": "on",
        "log_directory": str(log_folder),
        "log_filename": "postgresql-%a.log",
        "log_truncate_on_rotation": "on",
        "log_rotation_age": "1d",
    }


def _test() -> dict[str, str | int]:
    return {
        "fsync": "off",
        "synchronous_commit": "off",
        "full_page_writes": "off",
        "shared_buffers": "64MB",
        "max_connections": 150,
        "max_wal_size": "512MB",
        "autovacuum_naptime": "1h",
    }


def _sizes() -> dict[str, str | int]:
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    if memory_gib < SERVER_MEMORY_GIB or (os.cpu_count() or 1) <= 2:
        return {
            "shared_buffers": "128MB",
            "effective_cache_size": "1GB",
            "work_mem": "16MB",
            "maintenance_work_mem": "128MB",
            "max_connections": 60,
            "max_wal_size": "2GB",
        }
    return {
        "shared_buffers": f"{int(memory_gib * 1024 * 0.25)}MB",
        "effective_cache_size": f"{int(memory_gib * 1024 * 0.6)}MB",
        "work_mem": "32MB",
        "maintenance_work_mem": "1GB",
        "max_connections": 200,
        "max_wal_size": "8GB",
    }


def _with_lz4(binaries: Binaries) -> bool:
    if not (binaries.folder / "pg_config").is_file():
        return False
    asked = [binaries.tool("pg_config"), "--configure"]
    return "--with-lz4" in subprocess.run(asked, capture_output=True, text=True, check=True).stdout


def _quoted(value: str | int) -> str:
    return str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
