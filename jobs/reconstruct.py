"""Reconstruct surface currents from people's own drifters: maps with their uncertainty, judged on drifters left out."""

from pcl.commands.main import script

if __name__ == "__main__":
    script("reconstruct")
