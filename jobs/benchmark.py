"""Measure side by side in one run: loader against memory, whole path against a bare loop, two workers against one."""

from pcl.commands.main import script

if __name__ == "__main__":
    script("benchmark")
