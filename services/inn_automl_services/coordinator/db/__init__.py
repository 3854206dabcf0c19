"""The database: tables, sessions and migrations, for SQLite and PostgreSQL alike. Queries live in
the repositories.
"""
