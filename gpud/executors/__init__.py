"""Adapters that start, adopt, stop and observe attempts (gpud/ports.py, Executor)."""
