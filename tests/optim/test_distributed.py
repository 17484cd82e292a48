"""Parameters stay equal on all ranks under DDP: one real job for the whole table."""

import json

import pytest

from optim import OPTIMIZERS
from tests.jobs import finish, ranks


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """The results of distributed_job.py, with two processes over gloo."""
    file = tmp_path_factory.mktemp("ddp") / "found.json"
    for rank in ranks(["tests.optim.distributed_job", str(file)], 2, program="-m"):
        finish(rank)
    return json.loads(file.read_text())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_parameters_are_the_same_bits_on_all_ranks(found, name):
    one, two = found["hashes"][name]
    assert one == two
    assert one != found["start"], "it has moved"


def test_without_ddp_the_ranks_drift_apart(found):
    """The batches of the ranks differ, so equal hashes mean something."""
    one, two = found["hashes"]["alone"]
    assert one != two
