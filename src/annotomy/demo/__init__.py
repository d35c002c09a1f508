"""`annotomy demo`: the server with sample studies, the built-in models run on them as real predictions, and their results checked."""
