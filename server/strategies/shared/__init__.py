"""Code that several strategies share. May import the same packages as `server.strategies`."""
