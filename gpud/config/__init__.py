"""The configuration: TOML to structs. Reads the file and nothing else."""
