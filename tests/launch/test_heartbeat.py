"""Signs of life between ranks, with torch's store in this process."""

from torch.distributed import HashStore

from launch import heartbeat


def test_a_rank_that_ends_all_others_leaves_the_store_which_may_go_before_it(monkeypatch):
    monkeypatch.setattr(heartbeat, "TICK_SECONDS", 0.01)
    store = HashStore()
    for rank in range(2):
        heartbeat.Heartbeat.announce(store, rank)
    failing = heartbeat.Heartbeat(store, 1, 1, ["alpha", "alpha"], "alpha:29500", 90)
    failing.start()
    line = failing.end_all("out of memory")
    beating, _ = failing.threads
    beating.join(5)
    assert not beating.is_alive()
    assert store.get("mistake").decode() == line == "rank 1 on alpha: out of memory"
    assert store.get("beat/1").decode() == heartbeat.LEFT
    failing.stop()
