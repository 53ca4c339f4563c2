"""The content of messages between server and client: parameters and figures, and the noise on them. Imports
`common.blocks` and `common.errors`.
"""
