"""Evaluate a checkpoint of a run: tables, metrics.json, figures, NetCDF, TensorBoard."""

from pcl.commands.main import script

if __name__ == "__main__":
    script("evaluate")
