"""The code that the server and the clients share. Imports neither of them, and nothing of `deploy`."""
