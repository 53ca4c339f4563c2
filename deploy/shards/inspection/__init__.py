"""What `fedmosaic inspect` finds in a shard, and the page that shows it. Imports `deploy.progress` and `server.report`."""
