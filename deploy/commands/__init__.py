"""The commands of `fedmosaic`, one per module: the command line of the command, and its work or a call of the code that
does the work.

A module of this package imports nothing large before its command runs, because `fedmosaic --help` imports them all.
"""
