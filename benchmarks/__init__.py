"""What takes how long? Figures for RESULTS.md and docs/log.md; see `__main__.py`."""
