"""The daemon: one engine that owns the state, and the only place that names concrete adapters."""
