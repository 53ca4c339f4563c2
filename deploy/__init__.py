"""Starts server and clients as processes, and contains the commands of a user. May import `server`, `client` and
`common`; none of them imports it.
"""
