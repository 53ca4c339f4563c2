"""The server's view of the clients: messages, replies, checks, the roster. Imports `server.sites`."""
