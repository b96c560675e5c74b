"""Brings the tables of an older ledger to today's form; its entries and their hashes stay as they are."""

from __future__ import annotations

from contextlib import closing

from sqlalchemy import Connection, Engine, Table, inspect
from sqlalchemy.schema import CreateColumn, CreateTable

from ifas.database.connection import WRITING, Use
from ifas.promotion.tables import STATE_CHECK, STATES, Base, CandidateRow


def upgrade(engine: Engine) -> None:
    """Adds what a ledger of an older version lacks: columns, and states that candidates may have.

    One transaction: a killed process leaves the older form, and the next one begins again.
    """
    if not _lacking(engine):
        return
    if engine.dialect.name == "sqlite":
        _sqlite(engine)
    else:
        with engine.execution_options(**{WRITING: True}).begin() as connection:
            if _lacking(connection):
                _add_columns(connection)
                connection.exec_driver_sql(f"ALTER TABLE candidates DROP CONSTRAINT {STATE_CHECK}")
                connection.exec_driver_sql(
                    f"ALTER TABLE candidates ADD CONSTRAINT {STATE_CHECK} CHECK (state IN {STATES})"
                )


def _lacking(of: Engine | Connection) -> list[tuple[Table, str, str]]:
    """What tables that are there lack: the table, the column's name, the column as it is written in SQL."""
    there = inspect(of)
    return [
        (table, column.name, str(CreateColumn(column).compile(dialect=of.dialect)))
        for table in Base.metadata.sorted_tables
        if there.has_table(table.name)
        for column in table.columns
        if column.name not in {one["name"] for one in there.get_columns(table.name)}
    ]


def _add_columns(connection: Connection) -> None:
    for table, _, column in _lacking(connection):
        connection.exec_driver_sql(f"ALTER TABLE {table.name} ADD COLUMN {column}")


def _sqlite(engine: Engine) -> None:
    """SQLite can't change a constraint: the table is made anew, with foreign keys off, as its manual says."""
    candidates: Table = CandidateRow.__table__  # type: ignore[assignment]
    made = str(CreateTable(candidates).compile(dialect=engine.dialect))
    names = ", ".join(column.name for column in candidates.columns)
    columns = _lacking(engine)
    with closing(engine.raw_connection()) as connection:
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = OFF")
        try:
            cursor.execute("BEGIN IMMEDIATE")
            for table, name, column in columns:
                # Another process may have been quicker.
                if name not in {row[1] for row in cursor.execute(f"PRAGMA table_info({table.name})")}:
                    cursor.execute(f"ALTER TABLE {table.name} ADD COLUMN {column}")
            cursor.execute(made.replace("TABLE candidates", "TABLE candidates_new", 1))
            cursor.execute(f"INSERT INTO candidates_new ({names}) SELECT {names} FROM candidates")  # noqa: S608 - no input
            cursor.execute("DROP TABLE candidates")
            cursor.execute("ALTER TABLE candidates_new RENAME TO candidates")
            for index in candidates.indexes:
                on = ", ".join(column.name for column in index.columns)
                cursor.execute(f"CREATE INDEX {index.name} ON candidates ({on})")
            cursor.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                cursor.execute("ROLLBACK")
            raise
        finally:
            cursor.execute("PRAGMA foreign_keys = ON")


LEDGER = Use("ledger", "gate.ledger (or IFAS_LEDGER)", Base.metadata, lock=0x1FA5_1ED6, upgrade=upgrade)
