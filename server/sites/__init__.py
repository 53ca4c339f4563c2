"""What people are told of the sites: where each stands, what is wrong with its data. Imports `common` alone."""
