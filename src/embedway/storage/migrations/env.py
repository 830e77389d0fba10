"""Runs the migrations for Alembic, on the connection that `storage.database` passes."""

from alembic import context

from embedway.storage.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
