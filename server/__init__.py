"""The code of the server, which never sees a site's example. Imports `common` alone."""
