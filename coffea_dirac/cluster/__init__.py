"""A dask cluster whose workers are jobs: `cluster` is the cluster, `embedded` the one of this machine by default."""
