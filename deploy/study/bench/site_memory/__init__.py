"""Measurement of the memory that a site needs to train on many examples. Imports what `deploy.study` may import."""
