"""Run by Alembic: migrates on the connection that `database.open_database` holds, inside its transaction."""

from alembic import context

from farm.results.tables import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    # SQLite cannot change most of a table in place: Alembic then copies it
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
