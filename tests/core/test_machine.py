"""The core keeps its promises, whatever happens to it."""

from __future__ import annotations

from hypothesis.stateful import run_state_machine_as_test

from .machine import CoreMachine, machine_settings


def test_the_core_keeps_its_promises() -> None:
    run_state_machine_as_test(CoreMachine, settings=machine_settings(print_blob=True))
