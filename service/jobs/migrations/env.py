"""Run by Alembic. The connection comes from service.jobs.migrate, which also holds the transaction."""

from alembic import context

from service.jobs.tables import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, render_as_batch=True)
context.run_migrations()
