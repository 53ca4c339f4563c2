"""The small frozen models of this project. They are trained only on drawn birds, of other species than those of
birds-mini. Imports `deploy.terminal` of `deploy`.
"""
