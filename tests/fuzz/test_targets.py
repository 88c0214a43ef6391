"""P6, P7: no input makes a parser raise anything but a typed error; `make fuzz` looks for longer."""

from __future__ import annotations

import warnings
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from keyark.errors import KeyarkError
from tests.fuzz.mutators import mutate
from tests.fuzz.targets import SEEDS, TARGETS, Target

EVERYTHING = [seed for target in TARGETS for seed in target.seeds()]


def run(target: Target, data: bytes) -> bool:
    """Whether the input is taken; fails for anything but a typed refusal."""
    with warnings.catch_warnings(action="ignore"):
        try:
            target.parse(data)
        except KeyarkError:
            return False
    return True


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_a_good_input_is_taken_and_found_ones_are_refused(target: Target) -> None:
    taken = [run(target, seed) for seed in target.seeds()]
    assert taken[0] or target.name in {"key-uri"}


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
@settings(
    max_examples=30, derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck)
)
@given(seed=st.integers(0, 2**32 - 1))
def test_every_other_input_is_refused_with_a_typed_error(target: Target, seed: int) -> None:
    random = Random(seed)
    run(target, mutate(random, random.choice(target.seeds()), EVERYTHING))


def test_every_folder_of_seeds_has_its_target() -> None:
    assert {path.name for path in SEEDS.iterdir()} == {target.name for target in TARGETS}
