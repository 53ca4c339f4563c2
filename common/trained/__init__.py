"""Trained models on disk and their predictions. May import all of `common`."""
