"""The server's own shards: test set and probe set. Imports `common` alone."""
