"""Measurements of speed and memory, compared with stock Flower or a bare loop. May import the same packages as
`deploy.study`."""
