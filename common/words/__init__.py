"""Numbers, lists, names and log lines in readable form. Imports nothing of the project."""
