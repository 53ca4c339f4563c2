"""Numbers, lists, names and log lines, written for people. Imports nothing of the project."""
