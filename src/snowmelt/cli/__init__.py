"""Words on a command line become one call below: parsing, exit codes, what is printed.

Invariant: importing a module of this package imports neither torch nor numpy; a subcommand imports
what it needs inside `run`. No formulas live here.
"""
