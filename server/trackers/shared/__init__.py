"""Code for all trackers: the choice of trackers, their threads, the names of figures, and the identities of runs.
Imports `server.trackers.base`."""
