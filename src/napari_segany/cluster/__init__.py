"""Work on other computers, by dask.distributed: planes, tiles and objects on many workers, or a model on one."""
