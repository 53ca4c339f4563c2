"""The content of a shard as `fedmosaic inspect` reports it, and the page about the shard. Imports `deploy.progress` and
`server.report`."""
