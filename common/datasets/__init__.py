"""Data sets, one per file: examples that `fedmosaic shard` divides among clients. Imports `common.data` and what is
below it.
"""
