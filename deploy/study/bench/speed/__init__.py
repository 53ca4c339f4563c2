"""Measurements of speed and memory, beside stock Flower or a bare loop. Imports what `deploy.study` may."""
