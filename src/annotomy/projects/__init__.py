"""Projects: who works together on which studies, in which roles."""
