"""A site's shard: its examples, prepared for the encoders. Imports `common.media`, `common.encoders` and the packages
that they may import.
"""
