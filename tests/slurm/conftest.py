"""The cluster of the tests in this folder."""

from collections.abc import Iterator

import pytest

from tests.jobs import wait_until
from tests.slurm.cluster import Cluster, NoCluster, start


@pytest.fixture(scope="session")
def running() -> Iterator[Cluster]:
    """A real SLURM of two virtual nodes; skips, with the reason, where none can be started."""
    try:
        with start() as cluster:
            yield cluster
    except NoCluster as reason:
        pytest.skip(f"no SLURM here: {reason}")


@pytest.fixture
def cluster(running: Cluster) -> Iterator[Cluster]:
    """The same, with nothing left in its queue by the test before, well ended or not."""
    yield running
    running.run("scancel", "--user", "root")
    wait_until(lambda: not running.run("squeue", "--noheader"), 60, pause=0.1)
