"""Measure memory, time and traffic of one loss with its gradient, side by side with ClipLoss of open_clip."""

from pcl.commands.main import script

if __name__ == "__main__":
    script("benchmark_losses")
