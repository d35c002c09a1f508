"""Workitems: unified procedure steps (PS3.4 CC) of people's, other systems' and models' work, each in a project."""
