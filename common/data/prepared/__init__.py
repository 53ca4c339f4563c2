"""The columns of prepared values, and the ways to make them: by several processes, into memory or the shard's folder
`cache`, or again whenever they are needed. Imports `common.encoders` and the modules of `common.data`."""
