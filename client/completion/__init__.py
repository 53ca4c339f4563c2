"""Completers, one per file: models that generate a missing modality. Imports `common` alone."""
