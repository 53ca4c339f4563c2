"""What runs where the data is: a site's node. Imports `common` alone."""
