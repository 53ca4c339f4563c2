"""Apps as Flower's guides show them, for comparison. Imports the models alone."""
