"""Methods, one per file: the objectives that a client minimises. Imports `common` alone."""
