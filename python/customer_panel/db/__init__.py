"""Everything about reaching PostgreSQL: the embedded server, connections, migrations."""
