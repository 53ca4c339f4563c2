"""The folder of a plugin that `fedmosaic init --plugin` writes. Imports nothing else of `deploy`."""
