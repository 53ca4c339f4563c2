"""Comparing methods: suites of runs, finished runs side by side. Imports `deploy.engines` and `deploy.shards`; only
`bench.speed`, which starts stock Flower, also imports `deploy.hosts`.
"""
