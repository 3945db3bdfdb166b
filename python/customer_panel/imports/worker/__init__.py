"""The thread of a server that runs imports."""
