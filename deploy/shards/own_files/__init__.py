"""Makes a shard from a site's own files. Imports `deploy.progress`."""
