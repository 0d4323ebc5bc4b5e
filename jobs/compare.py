"""Compare runs: a table of their latest evaluations, the keys in which they differ, their curves, on one page."""

from pcl.commands.main import script

if __name__ == "__main__":
    script("compare")
