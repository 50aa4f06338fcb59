"""The memory that survives: SQLite on a local disk (docs/decisions/store.md)."""
