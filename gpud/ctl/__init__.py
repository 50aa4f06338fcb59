"""gpuctl: the small client of gpud. Starts fast: standard library only, imported when needed."""
