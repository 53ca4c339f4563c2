"""A site's files as they lie, made into a shard. Imports `deploy.progress`."""
