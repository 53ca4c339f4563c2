"""Comparing methods: suites of runs, finished runs side by side. Imports `deploy.engines` and `deploy.shards`; of
`deploy.hosts` only the measurements in `bench.speed` do, which start stock Flower.
"""
