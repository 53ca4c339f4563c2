"""The page of a run. Imports `server.record` and `server.sites`."""
