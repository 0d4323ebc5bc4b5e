"""Train a run with Ray Train workers, or alone; the same command goes on after an interruption."""

from pcl.commands.main import script

if __name__ == "__main__":
    script("train")
