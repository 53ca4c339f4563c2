"""Data sets, one a file: examples that `fedmosaic shard` divides among clients. Imports `common.data` and what is
below it.
"""
