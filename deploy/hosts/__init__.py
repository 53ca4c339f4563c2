"""The programs on the hosts of a deployment: SuperLink, SuperNode, their tasks, keys and checks, containers and
services. Imports nothing else of `deploy`.
"""
