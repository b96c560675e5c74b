"""Databases that decisions are kept in: how a process connects to SQLite or PostgreSQL, and writes in order."""
