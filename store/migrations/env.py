"""What Alembic runs for every command: it works on the connection that `store.migrate` hands in.

It opens no connection, reads no configuration file and leaves logging alone. The connection is in a
transaction already, so a migration that fails leaves nothing half-changed, on SQLite too; MariaDB
cannot take changes of tables back.
"""

from alembic import context

from store import schema, schema_ha
from store.columns import metadata
from store.dialects import prepare

# Importing the two modules is what registers their tables.
TABLES = (schema.cluster, schema_ha.incident)

connection = context.config.attributes["connection"]
prepare(connection)
context.configure(
    connection=connection,
    target_metadata=metadata,
    compare_type=True,
    transaction_per_migration=False,
)
with context.begin_transaction():
    context.run_migrations()
