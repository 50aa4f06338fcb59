"""A forecast says what the core then does, as far as anybody can know, and changes nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis.stateful import run_state_machine_as_test

from .foreseen import ForeseeingMachine
from .foretold import (
    Life,
    check_changes_nothing,
    check_comes_true,
    check_is_like_the_live_one,
    check_remedies_help,
    lives,
)
from .machine import machine_settings


@settings(max_examples=500)
@given(lives)
def test_what_was_foretold_happens(life: Life) -> None:
    """Where it is known how long everything takes, each job starts when it was said to, and after
    whom; and what never starts was not said to."""
    check_comes_true(life)


@given(lives)
def test_a_forecast_changes_nothing(life: Life) -> None:
    check_changes_nothing(life)


@given(lives)
def test_a_twin_is_like_the_live_one(life: Life) -> None:
    check_is_like_the_live_one(life)


@settings(max_examples=300)
@given(lives)
def test_with_what_is_said_to_help_a_job_starts(life: Life) -> None:
    check_remedies_help(life)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_at_any_moment_of_any_life_there_is_a_forecast() -> None:
    run_state_machine_as_test(ForeseeingMachine, settings=machine_settings(print_blob=True))
