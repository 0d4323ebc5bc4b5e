"""Train and evaluate every variant of a run file, with every seed, and compare them."""

from pcl.commands.main import script

if __name__ == "__main__":
    script("sweep")
