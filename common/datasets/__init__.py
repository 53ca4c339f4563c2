"""Data sets, one per file: examples that `fedmosaic shard` divides among clients. Imports `common.data` and the
packages that it may import.
"""
