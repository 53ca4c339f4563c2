"""`fedmosaic bench train`: a client's epoch against a plain PyTorch loop. Imports `client`, `common` and
`deploy.terminal`.
"""
