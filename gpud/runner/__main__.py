"""The entry: makes the package importable in an interpreter without a path, and runs it.

Called by the daemon (executors/launch.py) as a file. The path goes back to the standard library's
alone: whatever is imported later would come from an upgrade, and is a mistake.
"""

import sys

if __name__ == "__main__":
    sys.path.append(__file__.removesuffix("/gpud/runner/__main__.py"))
    from gpud.runner.main import main

    sys.path.pop()
    sys.exit(main(sys.argv[1:]))
