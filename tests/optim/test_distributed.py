"""Parameters stay equal on all ranks under DDP: one real job for the whole table."""

import json

import pytest

from optim import OPTIMIZERS
from tests.jobs import finish, once, ranks


def train_all(folder):
    """The results of distributed_job.py, with two processes over gloo."""
    file = str(folder / "found.json")
    for rank in ranks(["tests.optim.distributed_job", file], 2, program="-m"):
        finish(rank)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """By name of an optimizer, the hash of the weights on each rank."""
    return json.loads((once(tmp_path_factory, "ddp", train_all) / "found.json").read_text())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_are_the_same_bits_on_all_ranks(found, name):
    one, two = found["hashes"][name]
    assert one == two
    assert one != found["start"], "it has moved"


def test_without_ddp_the_ranks_drift_apart(found):
    """The batches of the ranks differ, so equal hashes mean something."""
    one, two = found["hashes"]["alone"]
    assert one != two
