"""The grammar of `--gpus`, with the predecessor's meanings and without its traps."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpud.config.gpu_words import cpu_lane, from_command_line, from_config, from_variable
from gpud.config.limits import MOST_SLOTS
from gpud.core.model import Device
from gpud.core.pool import Pool
from gpud.errors import EXIT_USAGE, GpudError

UUID = "GPU-8f2c1d3e-0000-1111-2222-333344445555"
MIG = "MIG-8f2c1d3e-0000-1111-2222-333344445555"


def shape(devices: tuple[Device, ...]) -> list[tuple[str, int]]:
    return [(device.key, device.slots) for device in devices]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["0", "1", "2"], [("0", 1), ("1", 1), ("2", 1)]),
        (["0,1,2"], [("0", 1), ("1", 1), ("2", 1)]),
        (["0, 1"], [("0", 1), ("1", 1)]),
        ([" 0 "], [("0", 1)]),
        (["0,1", "2"], [("0,1", 1), ("2", 1)]),
        (["0", "0"], [("0", 2)]),
        (["0,0"], [("0", 2)]),
        (["0,1", "0,1"], [("0,1", 2)]),
        (["2", "0", "2"], [("2", 2), ("0", 1)]),
        (["00", "0"], [("0", 2)]),
        ([UUID, MIG], [(UUID, 1), (MIG, 1)]),
        (["MIG-GPU-8f2c1d3e/1/0"], [("MIG-GPU-8f2c1d3e/1/0", 1)]),
        (["none"], []),
    ],
)
def test_words_to_devices(words: list[str], expected: list[tuple[str, int]]) -> None:
    assert shape(from_command_line(words)) == expected


def test_a_variable_is_split_or_hides_all() -> None:
    assert shape(from_variable("0,1")) == [("0", 1), ("1", 1)]
    assert from_variable("") == from_variable("-1") == from_variable("NoDevFiles") == ()


def test_in_the_configuration_a_lone_pair_stays_a_pair() -> None:
    assert from_config(["0,1"]) == (Device("0,1", ("0", "1")),)
    assert from_config(["0", "0"]) == (Device("0", ("0",), 2),)


def test_the_lane_cpu_has_slots_or_is_not_there() -> None:
    assert cpu_lane(4) == (Device("cpu", (), 4),)
    assert cpu_lane(0) == ()
    assert cpu_lane(10**6) == (Device("cpu", (), MOST_SLOTS),)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ([], "it names no GPU; if that is meant, write none"),
        ([""], "it names no GPU; if that is meant, write none"),
        (["  "], "it names no GPU"),
        (["0,"], "a GPU id is missing"),
        (["0,,1"], "a GPU id is missing"),
        ([","], "it names no GPU"),
        (["0", ""], "a GPU id is missing"),
        (["0 1"], '"0 1" has a space in it; name each slot as a word of its own'),
        (["0-3"], '"0-3" is a range'),
        (["0:3"], '"0:3" is a range'),
        (["-1"], '"-1" is neither a GPU index nor a UUID'),
        (["٣"], "is neither a GPU index nor a UUID"),
        (["0;rm"], '"0;rm" is neither'),
        (["cpu"], "cpu is not a GPU id"),
        (["0", "none"], "none is not a GPU id"),
        (["0,1", "1"], "GPU 1 stands in 0,1 and in 1, which may not overlap"),
        (["0,1", "1,0"], "GPU 1 stands in 0,1 and in 1,0"),
        (["0,0", "1"], "GPU 0 stands twice in 0,0"),
        (["0"] * 1001, "at most 1000 jobs can share a GPU"),
    ],
)
def test_bad_words_get_one_sentence(words: list[str], why: str) -> None:
    with pytest.raises(GpudError) as caught:
        from_command_line(words)
    assert caught.value.message.startswith("cannot use --gpus")
    assert why in caught.value.message
    assert "\n" not in caught.value.message
    assert caught.value.exit_status == EXIT_USAGE
    assert caught.value.hint


IDS = st.integers(0, 15).map(str) | st.sampled_from([UUID, MIG])


@given(ids=st.lists(IDS, min_size=1, max_size=12))
def test_one_word_with_commas_is_the_same_as_many_words(ids: list[str]) -> None:
    assert from_command_line([",".join(ids)]) == from_command_line(ids)


@given(words=st.lists(st.text(alphabet="01, nG-/\t.", max_size=6), max_size=6))
def test_devices_never_overlap_and_count_every_word(words: list[str]) -> None:
    try:
        devices = from_config(words)
    except GpudError:
        return
    ids = [one for device in devices for one in device.ids]
    assert len(ids) == len(set(ids))
    assert len({device.key for device in devices}) == len(devices)
    assert sum(device.slots for device in devices) in (len(words), 0)
    pool = Pool(devices)
    assert all(pool.free_milli(device) >= device.slot_milli > 0 for device in devices)
