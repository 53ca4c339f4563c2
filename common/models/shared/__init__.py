"""Code that several models share. Imports nothing of the project."""
