"""What is compared: our import, and the best that plain psql and SQL can do with the same file."""
