"""Where metrics are offered: "127.0.0.1:9464", "[::1]:9464", or the path of a Unix socket.

Read by config/walk.py, and by daemon/metering.py. An address is one, not a name: what a name means
is decided elsewhere, and may be another machine's network tomorrow.
"""

from __future__ import annotations

import ipaddress

from gpud.errors import GpudError

EXAMPLE = 'write text like "127.0.0.1:9464" or "./metrics.sock"'
HIGHEST_PORT = 65535

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def is_path(text: str) -> bool:
    return "/" in text or text.startswith(("~", "$", "."))


def read_listen(text: str) -> tuple[Address, int]:
    """Address and port. Raises GpudError (config) with a clause about what is wrong."""
    host, colon, port = text.rpartition(":")
    if not colon or not host:
        why = "it has no address" if colon else "it has no port"
        raise GpudError(f"{why}: {EXAMPLE}", kind="config")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= HIGHEST_PORT):
        raise GpudError(
            f'"{port[:60]}" is not a port: it is a number from 1 to {HIGHEST_PORT}', kind="config"
        )
    if host == "localhost":
        return ipaddress.IPv4Address("127.0.0.1"), int(port)
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ipaddress.ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        address = None
    if address is None or bracketed != (address.version == 6):
        raise GpudError(f'"{host[:60]}" is not an address: {EXAMPLE}', kind="config")
    return address, int(port)
