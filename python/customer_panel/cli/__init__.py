"""The command line: one file for each command, loaded only when the command runs."""
