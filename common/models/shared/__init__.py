"""What several models have in common; no model itself. Imports nothing of the project."""
