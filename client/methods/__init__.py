"""Methods, one a file: what a client minimises. Imports `common` alone."""
