"""Working together: live updates and the feed of what happened."""
