"""What does `python -m snowmelt` do? The same as the command `snowmelt`."""

from snowmelt.cli.main import entry_point

if __name__ == "__main__":
    entry_point()
