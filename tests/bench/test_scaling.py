"""bench.scaling: the arithmetic of docs/scaling.md, against a ring that is played through."""

import pytest

from bench import scaling
from tests.jobs import ROOT


@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_bytes_sent_are_those_of_a_ring(ranks):
    """n ranks, n chunks: each sends one chunk to its neighbour, until all have all sums."""
    chunks = [[{rank} for _ in range(ranks)] for rank in range(ranks)]  # whose gradients are in it
    sent = 0
    for turn in range(2 * (ranks - 1)):
        moves = [(rank, (rank - turn) % ranks) for rank in range(ranks)]
        parcels = [(rank, chunk, set(chunks[rank][chunk])) for rank, chunk in moves]
        for rank, chunk, parcel in parcels:
            chunks[(rank + 1) % ranks][chunk] |= parcel
        sent += 1  # chunks that each rank sent
    assert all(chunk == set(range(ranks)) for rank in chunks for chunk in rank)
    assert scaling.sent(1000.0, ranks) == pytest.approx(1000 * sent / ranks)


def test_within_one_node_the_network_does_not_matter():
    slow = scaling.NETWORKS[-1]
    assert scaling.hierarchical(1e9, 8, slow) == scaling.ring(1e9, 8, scaling.NVLINK)
    assert scaling.hierarchical(1e9, 16, slow) > scaling.hierarchical(1e9, 8, slow)


def test_tables_in_the_document_are_what_the_program_prints():
    text = (ROOT / "docs/scaling.md").read_text()
    for table in scaling.report().split("\n\n"):
        assert table in text, table
