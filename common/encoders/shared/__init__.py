"""What several encoders have in common; no encoder itself. Imports nothing of the project."""
