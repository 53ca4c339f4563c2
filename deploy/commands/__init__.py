"""The commands of `fedmosaic`, each a module: its command line, and what it does or whom it asks to.

A module of this package imports nothing large before its command runs, because `fedmosaic --help` imports them all.
"""
