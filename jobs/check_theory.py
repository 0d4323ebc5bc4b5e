"""Check what training reaches against what Gaussian theory expects: figures, metrics.json, report.html, TensorBoard."""

from pcl.commands.main import script

if __name__ == "__main__":
    script("theory")
