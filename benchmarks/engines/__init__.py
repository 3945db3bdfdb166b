"""The engines to compare: our import, and the best that plain psql and SQL can do with the file."""
