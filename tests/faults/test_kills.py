"""SIGKILL at random moments: the short forms of `python -m tests.faults.kills`."""

import pytest

from tests.faults.dying import MOMENTS
from tests.faults.kills import torment


def test_killed_twenty_times_it_ends_with_the_same_bits(shards, tmp_path):
    outcome = torment(shards, tmp_path, kills=20)
    assert outcome.torn >= 3, "hardly any was in the middle of a checkpoint"
    assert set(outcome.moments) == set(MOMENTS)


@pytest.mark.slow
def test_killed_with_torchrun_and_all_ranks_it_ends_with_the_same_bits(shards, tmp_path):
    torment(shards, tmp_path, kills=2, nproc=2)
