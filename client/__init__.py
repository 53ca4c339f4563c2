"""The code of a site's node, which runs where the data are. Imports `common` alone."""
