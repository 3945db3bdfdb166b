"""The job: its rows, its sessions, what is asked of it, how far it is."""
