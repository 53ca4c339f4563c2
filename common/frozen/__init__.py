"""Frozen models of others: where their weights lie, and the one door through which they are loaded. Imports
`common.config` and `common.media`.
"""
