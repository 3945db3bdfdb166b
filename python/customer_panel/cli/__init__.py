"""The command line: one file a command, none of them loaded before it is run."""
