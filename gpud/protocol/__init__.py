"""The control protocol as types and framing; no I/O (docs/protocol.md)."""

PROTOCOL_VERSION = 1
MAX_LINE_BYTES = 1 << 20
