"""Code that several data sets share. May import the same packages as `common.datasets`."""
