"""The job of an import: its rows in the database, its sessions, its requests, its progress."""
