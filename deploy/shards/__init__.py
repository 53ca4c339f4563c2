"""What commands do with shards: make, show, complete and predict them. Imports `deploy.progress` and `deploy.terminal`
of `deploy`.
"""
