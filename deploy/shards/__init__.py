"""The work of the commands on shards: making, showing, completing and predicting them. Imports `deploy.progress` and
`deploy.terminal` of `deploy`.
"""
