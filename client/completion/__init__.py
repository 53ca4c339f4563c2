"""Completers, one a file: models that write a missing modality. Imports `common` alone."""
