"""The cluster of the tests in this folder."""

from collections.abc import Iterator

import pytest

from tests.slurm.cluster import Cluster, NoCluster, start


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    """A real SLURM of two virtual nodes; skips, with the reason, where none can be started."""
    try:
        with start() as running:
            yield running
    except NoCluster as reason:
        pytest.skip(f"no SLURM here: {reason}")
