"""Arrays of others as they lie in files: .npy, .npz, NetCDF, Zarr, Parquet, CSV, or in memory."""
