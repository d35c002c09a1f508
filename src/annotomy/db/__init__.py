"""The one database: transactions, migrations, the private PostgreSQL."""
