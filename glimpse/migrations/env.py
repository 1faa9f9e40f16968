"""Runs the revisions on the connection that `glimpse.db.schema` hands over in `Config.attributes["connection"]`."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
