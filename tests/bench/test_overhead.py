"""bench.overhead on real processes."""

from bench.overhead import measured, overhead


def test_two_ranks_give_one_clock_for_each_update(tiny):
    found = measured([*tiny, "--checkpoint.every", "0", "--diagnose.every", "2"], 14, nproc=2)
    assert {len(found[name]) for name in ("step", "logging and metrics", "measuring")} == {4}
    assert (found["measuring"] > 0).sum() == 2
    assert overhead(found) > 0
