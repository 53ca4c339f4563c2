"""What `fedmosaic inspect` finds in a shard, and the page of it. Imports `deploy.progress` and `server.report`."""
