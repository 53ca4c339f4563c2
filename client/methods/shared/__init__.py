"""Code that several methods share. Imports `common` alone."""
