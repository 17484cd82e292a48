"""What rank 0 does for all ranks, and what all of them compare first."""

from types import SimpleNamespace

import pytest

from launch import session

MINE = {"batches": "b" * 64, "val": "v" * 64}


@pytest.mark.parametrize(
    ("of_rank_0", "found"),
    [
        ({**MINE, "weights": "w" * 64}, None),
        ({**MINE, "val": "x" * 64}, "the hash of the val text is vvvvvvvv, not xxxxxxxx; copy"),
        ({**MINE, "batches": "x" * 64}, "the hash of the first batches is bbbbbbbb, not xxxxxxxx"),
        ({**MINE, "test": "x" * 64}, "the hash of the test text is none, not xxxxxxxx"),
    ],
)
def test_a_rank_with_other_data_than_rank_0_is_named(of_rank_0, found):
    process = SimpleNamespace(host="node-b", rank=3, broadcast=lambda mine: of_rank_0)
    problem = session._other_data(process, MINE)
    if found is None:
        assert problem is None
    else:
        assert problem.startswith("node-b (rank 3) has other data in data.dir than rank 0: ")
        assert found in problem
