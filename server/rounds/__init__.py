"""A run: introductions, rounds, evaluation. Imports `server.clients`, `server.strategies`, `server.own_data`,
`server.record` and `server.sites`.
"""
