"""gpud: a queue for shell jobs on the GPUs of one machine."""

__version__ = "0.1.0"
