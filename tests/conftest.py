"""Fixtures that every test may use: a real PostgreSQL database, cloned from one migrated template."""

from collections.abc import Iterator

import pytest

from tests.support import postgres

pytest_plugins = [
    "tests.support.application",
    "tests.support.browser",
    "tests.support.dicom_listener",
    "tests.access.world",
]


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        postgres.begin_run()


def pytest_unconfigure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        postgres.end_run()


@pytest.fixture(scope="session")
def test_databases() -> postgres.TestDatabases:
    """The run's server; starts at the first use."""
    return postgres.TestDatabases()


@pytest.fixture
def database_url(test_databases: postgres.TestDatabases) -> Iterator[str]:
    """A migrated database of this test's own, as the application's role sees it."""
    url = test_databases.create()
    yield url
    test_databases.drop(url)


@pytest.fixture
def empty_database_url(test_databases: postgres.TestDatabases) -> Iterator[str]:
    """A database of this test's own without any table."""
    url = test_databases.create_empty()
    yield url
    test_databases.drop(url)
