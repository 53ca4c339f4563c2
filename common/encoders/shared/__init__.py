"""Code that several encoders share. Imports nothing of the project."""
