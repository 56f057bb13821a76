"""The floor of the house: errors, safe files, configuration values, logging, progress.

Invariant: imports nothing else of snowmelt and no torch; every other package may import this one.
"""
