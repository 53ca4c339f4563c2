"""The ways to run an experiment, and what a person sees of it. Imports `deploy.hosts`; nothing of `deploy.shards` or
`deploy.study`.
"""
