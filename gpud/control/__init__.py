"""The control server: what `gpuctl` talks to, on a Unix socket (docs/protocol.md).

Who may ask, in which order requests of one connection are answered and how much may pile up is
decided here; what a request means is decided in the core. No file here changes the state: all
changes go through `Controlled.ask`.
"""
