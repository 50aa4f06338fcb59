"""The control socket from the other side: blocking, standard library only (docs/protocol.md)."""
