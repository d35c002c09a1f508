"""`annotomy demo`: the server with sample studies, the built-in models run on them as real predictions, and their results checked."""


class DemoFailed(Exception):
    """The demo cannot go on; the text says why."""
