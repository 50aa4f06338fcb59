"""The core keeps its promises, whatever happens to it: see machine.py and editing.py.

150 lives of 50 steps by default, 600 with `HYPOTHESIS_PROFILE=ci`.
"""

from __future__ import annotations

import pytest
from hypothesis.stateful import run_state_machine_as_test

from .editing import EditingMachine
from .machine import machine_settings


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_core_keeps_its_promises() -> None:
    run_state_machine_as_test(EditingMachine, settings=machine_settings(print_blob=True))
