"""Evaluation: a model's predictions for every subset of modalities, their tallies, and figures with intervals."""
