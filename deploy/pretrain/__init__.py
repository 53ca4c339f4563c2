"""Small frozen models of our own: trained on drawn birds that are not those of birds-mini, and on nothing else. Imports
`deploy.terminal` of `deploy`.
"""
