"""The ways to run an experiment, and the display of a run. Imports `deploy.hosts`; nothing of `deploy.shards` or
`deploy.study`.
"""
