"""Trackers, one per file: programs that show a run's figures while it runs. Imports `server.record`."""
