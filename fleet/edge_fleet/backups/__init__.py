"""Backups of the store: one portable file for SQLite and PostgreSQL."""
