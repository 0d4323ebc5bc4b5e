"""Submit a job to a Ray cluster, follow what it prints, and end with its exit code."""

from pcl.commands.main import script

if __name__ == "__main__":
    script("submit")
