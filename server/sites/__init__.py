"""What people see of the sites: the state of each, and problems of its data. Imports `common` alone."""
