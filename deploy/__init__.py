"""How server and clients become processes, and what a user does around a run. May import `server`, `client` and
`common`; none of them imports it.
"""
