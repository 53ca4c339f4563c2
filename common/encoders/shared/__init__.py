"""Code that several encoders share. Imports `common.config`."""
