"""Reports about the sites: the state of each site, and the problems of its data. Imports `common` alone."""
