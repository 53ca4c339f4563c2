"""Strategies, one per file: clients' updates -> the new model. Imports `server.aggregation`, `server.clients` and
`server.own_data`.
"""
