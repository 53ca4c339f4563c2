"""A data set divided into shards: partitions, scenarios of missing modalities. Imports `common.datasets` and
`common.data`.
"""
