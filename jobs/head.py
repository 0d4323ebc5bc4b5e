"""Get theory checks and evaluations done while training goes on: run it once on a cluster, beside the head node."""

from pcl.commands.main import script

if __name__ == "__main__":
    script("head")
