"""Who somebody is: users, passwords, sessions, access tokens, API keys."""
