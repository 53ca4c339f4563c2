"""The clients as the server knows them: messages, replies, checks, the roster. Imports `server.sites`."""
