"""The hardware that a process computes with: its device, its threads, and the faults of a device. Imports
`common.errors` alone.
"""
