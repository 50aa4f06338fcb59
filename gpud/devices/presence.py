"""Whether there is an NVIDIA driver to ask at all: a matter of a few files. Standard library only.

Called before anything of NVML is loaded, so that a machine without one pays nothing.
"""

from __future__ import annotations

import os

# The control device of the driver; what WSL has instead; the driver without its devices.
SIGNS = ("/dev/nvidiactl", "/dev/dxg", "/proc/driver/nvidia/version")
LIBRARY = "libnvidia-ml.so.1"


def driver_is_there() -> bool:
    if any(os.path.exists(sign) for sign in SIGNS):
        return True
    places = os.environ.get("LD_LIBRARY_PATH", "").split(":")
    return any(os.path.exists(os.path.join(place, LIBRARY)) for place in places if place)
