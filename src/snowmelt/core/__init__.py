"""The floor of the house: errors, safe files, settings, logging, progress, requests to stop.

Invariant: imports nothing else of snowmelt and no torch; every other package may import this one.
"""
