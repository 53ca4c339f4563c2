"""Frozen models: finding their weights, and loading them in one module. Imports `common.config` and `common.media`."""
