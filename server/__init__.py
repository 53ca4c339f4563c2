"""What runs at the coordinator, which never sees a site's example. Imports `common` alone."""
