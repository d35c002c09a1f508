"""The web kit."""  # noqa: A005 - named after src/annotomy/http; only ever imported as tests.http
