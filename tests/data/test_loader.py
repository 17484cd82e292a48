"""Which tokens a step sees, on how many ranks and from which thread."""

from __future__ import annotations

import ctypes
import mmap
import os
import threading
import time
from dataclasses import replace
from itertools import islice, pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from data import DataError, HeldOut, Loader, Prefetcher, first_batches_hash, loader, open_split
from data.formats import map_shard, write_shard
from data.loader import Windows, _ask_for

# ---- windows and batches ----


def test_windows_share_their_last_target_and_never_cross_shards(make_tokens):
    windows = Windows(make_tokens(9, 8, 4, 13), block_size=4)
    rows = windows.take(np.arange(len(windows)))
    assert rows[:, 0].tolist() == [0, 4, 9, 21, 25, 29]  # the shards begin at 0, 9, 17, 21
    assert (np.diff(rows.astype(int), axis=1) == 1).all()
    assert rows.shape == (6, 5)
    assert rows.dtype == np.uint16


def test_an_epoch_visits_every_window_once_and_the_next_in_another_order(make_tokens):
    loader = Loader(make_tokens(401, 301, 99), block_size=10, batch_size=79, data_seed=3)
    assert len(loader.windows) == 79
    first, second = loader.global_batch(0)[:, 0].tolist(), loader.global_batch(1)[:, 0].tolist()
    assert sorted(first) == sorted(second)
    assert len(set(first)) == 79
    assert first != second


def test_batch_may_straddle_epochs(make_tokens):
    loader = Loader(make_tokens(101), block_size=10, batch_size=4, data_seed=3)
    starts = np.concatenate([loader.global_batch(step)[:, 0] for step in range(5)]).tolist()
    assert sorted(starts[:10]) == sorted(starts[10:]) == list(range(0, 100, 10))
    assert loader.epoch(5) == 2.0


@settings(max_examples=40, deadline=None)
@given(
    share=st.integers(1, 4),
    world_size=st.sampled_from([1, 2, 3, 8]),
    seed=st.integers(0, 2**64 - 1),
    step=st.integers(0, 10**9),
)
def test_ranks_together_are_the_global_batch(tmp_path_factory, share, world_size, seed, step):
    tokens = _counting(tmp_path_factory)
    size = share * 24
    options = {"block_size": 7, "batch_size": size, "data_seed": seed}
    alone = Loader(tokens, **options).global_batch(step)
    ranks = [Loader(tokens, **options, rank=r, world_size=world_size) for r in range(world_size)]
    assert np.array_equal(np.concatenate([rank.rank_batch(step) for rank in ranks]), alone)
    assert all(np.array_equal(rank.global_batch(step), alone) for rank in ranks)


def _counting(factory):
    directory = factory.getbasetemp() / "counting"
    if not directory.exists():
        directory.mkdir()
        write_shard(directory / "x_train_0.bin", np.arange(900, dtype=np.uint16))
        write_shard(directory / "x_train_1.bin", np.arange(900, 1000, dtype=np.uint16))
    return open_split(directory, "train", vocab_size=1000)


def test_batches_never_change_by_accident(make_tokens):
    loader = Loader(make_tokens(5000, 3000), block_size=16, batch_size=8, data_seed=42)
    assert loader.global_batch(0)[:, 0].tolist() == GOLDEN_STARTS
    assert first_batches_hash(loader) == GOLDEN_HASH


GOLDEN_STARTS = [6936, 6904, 3712, 1472, 7752, 1248, 7832, 80]
GOLDEN_HASH = "364cbaf5a1e7f794146356e3adfe91a155bdc2aa79869ab9f7d8e2e924b5bbb9"


def test_hash_tells_seeds_and_data_apart_but_not_ranks(make_tokens):
    tokens = make_tokens(5000)
    options = {"block_size": 16, "batch_size": 8}
    base = first_batches_hash(Loader(tokens, **options, data_seed=1))
    assert base != first_batches_hash(Loader(tokens, **options, data_seed=2))
    assert base != first_batches_hash(Loader(tokens, **options, data_seed=1), steps=2)
    assert base == first_batches_hash(Loader(tokens, **options, data_seed=1, rank=1, world_size=4))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"batch_size": 10, "world_size": 4}, "multiple of 4"),
        ({"batch_size": 0}, "multiple of 1"),
        ({"batch_size": 40}, "has 39 sequences"),
        ({"batch_size": 4, "world_size": 2, "rank": 2}, "0 ... 1"),
        ({"batch_size": 4, "data_seed": -1}, "data_seed"),
        ({"batch_size": 4, "block_size": 0}, "block_size"),
    ],
)
def test_impossible_batches_are_refused(make_tokens, options, reason):
    with pytest.raises(DataError, match=reason):
        Loader(make_tokens(400), **({"block_size": 10, "data_seed": 1} | options))


# ---- the thread ----


def test_prefetcher_yields_the_ranks_batches_from_any_step(make_tokens):
    loader = Loader(
        make_tokens(2000), block_size=10, batch_size=8, data_seed=1, rank=1, world_size=2
    )
    with loader.batches(start_step=7) as batches:
        for step, batch in enumerate(islice(batches, 4), start=7):
            assert batch.dtype == torch.int64
            assert batch.shape == (4, 11)
            assert np.array_equal(batch.numpy(), loader.rank_batch(step))


def test_prefetcher_ends_its_thread_even_when_it_is_full():
    batches = Prefetcher(lambda step: np.zeros((1, 2), np.uint16), 0, pin_memory=False)
    next(batches)
    time.sleep(0.1)
    batches.close()
    batches.close()
    assert not any(thread.name == "data" for thread in threading.enumerate())
    with pytest.raises(StopIteration):
        next(batches)


def test_prefetcher_raises_the_threads_exception_in_next_and_keeps_raising():
    def fail(step):
        if step == 1:
            raise OSError("disk on fire")
        return np.zeros((1, 2), np.uint16)

    with Prefetcher(fail, 0, pin_memory=False) as batches:
        next(batches)
        for _ in range(2):
            with pytest.raises(OSError, match="disk on fire"):
                next(batches)


def test_prefetcher_measures_the_wait_for_a_slow_disk_only():
    def slow(step):
        time.sleep(0.05)
        return np.zeros((1, 2), np.uint16)

    with Prefetcher(slow, 0, pin_memory=False) as batches:
        next(batches)
        next(batches)
        assert batches.wait_seconds > 0.02
        time.sleep(0.3)
        next(batches)
        assert batches.wait_seconds < 0.02


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine can pin")
def test_pinning_without_cuda_is_refused(make_tokens):
    loader = Loader(make_tokens(400), block_size=10, batch_size=4, data_seed=1)
    with pytest.raises(DataError, match="CUDA"):
        loader.batches(0, pin_memory=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_are_pinned_when_asked(make_tokens):
    loader = Loader(make_tokens(400), block_size=10, batch_size=4, data_seed=1)
    with loader.batches(0, pin_memory=True) as batches:
        assert next(batches).is_pinned()


# ---- validation ----


@settings(max_examples=40, deadline=None)
@given(sequences=st.integers(1, 140), world_size=st.integers(1, 9), rows=st.integers(1, 50))
def test_shares_of_all_ranks_are_the_first_targets_once(
    tmp_path_factory, sequences, world_size, rows
):
    tokens = _counting(tmp_path_factory)
    shares = [
        list(HeldOut(tokens, block_size=7, num_tokens=7 * sequences, **rank).batches(rows))
        for rank in ({"rank": r, "world_size": world_size} for r in range(world_size))
    ]
    places, batches = zip(*(part for share in shares for part in share), strict=True)
    assert [i for place in places for i in range(place.start, place.stop)] == [*range(sequences)]
    assert [len(batch) for batch in batches] == [p.stop - p.start for p in places]
    assert all(1 <= len(batch) <= rows and batch.dtype == torch.int64 for batch in batches)
    together = torch.cat(batches)
    expected = Windows(tokens, 7).take(np.arange(sequences))
    assert together.numel() - len(together) == 7 * sequences
    assert np.array_equal(together.numpy(), expected)
    sizes = [sum(len(batch) for _, batch in share) for share in shares]
    assert max(sizes) - min(sizes) <= 1


def test_validation_runs_through_the_split_without_gaps(make_tokens):
    validation = HeldOut(make_tokens(101, split="val"), block_size=10, num_tokens=100)
    for _ in range(2):  # every pass is the same
        ((place, rows),) = validation.batches(64)
        assert place == slice(0, 10)
        assert rows[:, 1:].flatten().tolist() == list(range(1, 101))
    assert all(a[-1] == b[0] for a, b in pairwise(rows))


@pytest.mark.parametrize(
    ("num_tokens", "reason"),
    [
        (105, "; give --eval.tokens 100$"),
        (0, "; give --eval.tokens 10$"),
        (200, "has 190 in whole sequences of 10; give --eval.tokens 190, or make more data"),
    ],
)
def test_impossible_validation_is_refused_with_what_is_available(make_tokens, num_tokens, reason):
    with pytest.raises(DataError, match=reason):
        HeldOut(make_tokens(101, 99, split="val"), block_size=10, num_tokens=num_tokens)


# ---- limits ----


def test_the_smallest_and_largest_of_everything_are_allowed(make_tokens):
    tokens = make_tokens(41)
    for options in (
        {"block_size": 1, "batch_size": 40, "data_seed": 0},
        {"block_size": 10, "batch_size": 1, "data_seed": 2**64 - 1},
        {"block_size": 10, "batch_size": 4, "data_seed": 1, "rank": 0, "world_size": 4},
        {"block_size": 10, "batch_size": 4, "data_seed": 1, "rank": 3, "world_size": 4},
    ):
        loader = Loader(tokens, **options)
        share = options["batch_size"] // options.get("world_size", 1)
        assert loader.rank_batch(0).shape == (share, options["block_size"] + 1)
    assert HeldOut(tokens, block_size=40, num_tokens=40).num_tokens == 40


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"batch_size": 10, "world_size": 4},
            "a global batch of 10 sequences cannot be shared by 4 ranks; make it a multiple of 4",
        ),
        ({"batch_size": 4, "world_size": 2, "rank": 2}, "rank 2 is not in 0 ... 1"),
        ({"batch_size": 4, "world_size": 2, "rank": -1}, "rank -1 is not in 0 ... 1"),
        (
            {"batch_size": 4, "data_seed": 2**64},
            f"data_seed is {2**64}; it must be from 0 to 2**64 - 1",
        ),
        ({"batch_size": 4, "block_size": 0}, "block_size is 0; it must be at least 1 token"),
        (
            {"batch_size": 1000},
            "split train of {} has 39 sequences of 10 tokens, one batch takes 1,000; make"
            " --train.batch_tokens or --model.block_size smaller, or the data larger",
        ),
    ],
)
def test_refusals_say_what_was_given_and_what_is_valid(make_tokens, tmp_path, options, message):
    with pytest.raises(DataError) as caught:
        Loader(make_tokens(400), **({"block_size": 10, "data_seed": 1} | options))
    assert str(caught.value) == message.format(tmp_path)


def test_steps_count_from_zero(make_tokens):
    loader = Loader(make_tokens(401), block_size=10, batch_size=4, data_seed=1)
    with pytest.raises(DataError, match="step is -1; steps count from 0"):
        loader.global_batch(-1)
    assert loader.epoch(0) == 0.0
    assert loader.epoch(5) == 0.5


def test_windows_of_shards_shorter_than_one_are_none(make_tokens):
    assert len(Windows(make_tokens(3, 4), block_size=4)) == 0
    assert len(Windows(make_tokens(3, 5, 1), block_size=4)) == 1
    empty = Windows(make_tokens(5), block_size=4).take(np.array([], dtype=np.uint64))
    assert empty.shape == (0, 5)


@pytest.mark.parametrize(("rank", "world_size"), [(2, 2), (-1, 2)])
def test_validation_refuses_a_rank_that_is_not_there(make_tokens, rank, world_size):
    with pytest.raises(DataError, match=f"rank {rank} is not in 0 ... 1"):
        HeldOut(make_tokens(101), block_size=10, num_tokens=100, rank=rank, world_size=world_size)


def test_ranks_share_validation_in_contiguous_parts(make_tokens):
    tokens = make_tokens(111, split="val")
    shares = [
        HeldOut(tokens, block_size=10, num_tokens=110, rank=r, world_size=3) for r in range(3)
    ]
    assert [(v.start, v.stop) for v in shares] == [(0, 3), (3, 7), (7, 11)]
    assert [(place, len(rows)) for place, rows in shares[1].batches(3)] == [
        (slice(3, 6), 3),
        (slice(6, 7), 1),
    ]
    few = [HeldOut(tokens, block_size=10, num_tokens=10, rank=r, world_size=3) for r in range(3)]
    assert [[len(rows) for _, rows in v.batches(3)] for v in few] == [[], [], [1]]


def test_two_batches_are_prepared_ahead_and_no_more():
    made = []

    def batch(step):
        made.append(step)
        return np.full((1, 2), step, np.uint16)

    with Prefetcher(batch, 5, pin_memory=False) as batches:
        assert batches.wait_seconds == 0.0
        assert iter(batches) is batches
        deadline = time.monotonic() + 10
        while len(made) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        assert made == [5, 6, 7]  # two in the queue, and one that waits for a place
        assert [next(batches)[0, 0].item() for _ in range(4)] == [5, 6, 7, 8]
        (thread,) = (t for t in threading.enumerate() if t.name == "data")
        assert thread.daemon  # a process that fails elsewhere does not wait for it
        time.sleep(0.1)
    assert not thread.is_alive()  # though the queue is full


def test_pinned_batches_come_from_the_device_of_the_process(monkeypatch):
    """Without a GPU here: what the thread asks of torch."""
    asked = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    monkeypatch.setattr(
        torch.cuda, "set_device", lambda d: asked.append((d, threading.current_thread().name))
    )
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 100)
    rows = np.array([[1, 2]], np.uint16)
    with Prefetcher(lambda step: rows, 0, pin_memory=True) as batches:
        assert next(batches).tolist() == [[101, 102]]
    assert asked == [(3, "data")]
    with Prefetcher(lambda step: rows, 0, pin_memory=False) as batches:
        assert next(batches).tolist() == [[1, 2]]
    assert len(asked) == 1


# ---- slow disks ----


def resident(shard):
    """Whether each page of a mapped shard is in memory, as the system says."""
    file, libc = shard.base, ctypes.CDLL(None, use_errno=True)
    start = shard.ctypes.data - shard.offset % mmap.ALLOCATIONGRANULARITY
    pages = (ctypes.c_ubyte * -(-len(file) // mmap.PAGESIZE))()
    assert libc.mincore(ctypes.c_void_p(start), ctypes.c_size_t(len(file)), pages) == 0
    return [page & 1 for page in pages]


@pytest.mark.parametrize("suffix", ["bin", "npy"])
def test_windows_of_a_batch_are_read_by_the_system_before_they_are_used(tmp_path, suffix):
    path = tmp_path / f"x_train.{suffix}"
    if suffix == "bin":
        write_shard(path, np.zeros(2**20, np.uint16))
    else:
        np.save(path, np.zeros(2**20, np.uint16))
    shard = map_shard(path)
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    if any(resident(shard)):
        pytest.skip("this file system keeps all files in memory")
    place = 700_000
    _ask_for(shard, place, 4097)
    first, last = ((shard.offset + 2 * x) // mmap.PAGESIZE for x in (place, place + 4096))
    deadline = time.monotonic() + 10
    while not all(resident(shard)[first : last + 1]) and time.monotonic() < deadline:
        time.sleep(0.01)
    pages = resident(shard)
    assert all(pages[first : last + 1])
    assert sum(pages) == last - first + 1, "and no other"


def test_all_windows_are_asked_for_before_the_first_is_waited_for(make_tokens, monkeypatch):
    tokens, order = make_tokens(200, 300), []

    class Watched:
        def __init__(self, shard):
            self.shard = shard

        def __len__(self):
            return len(self.shard)

        def __getitem__(self, part):
            order.append(("read", part.start))
            return self.shard[part]

    watched = replace(tokens, shards=[Watched(shard) for shard in tokens.shards])
    monkeypatch.setattr(
        loader, "_ask_for", lambda shard, offset, length: order.append(("ask", offset, length))
    )
    rows = Windows(watched, 10).take(np.array([3, 30, 1]))
    assert order == [
        *(("ask", x, 11) for x in (30, 110, 10)),
        *(("read", x) for x in (30, 110, 10)),
    ]
    assert rows[:, 0].tolist() == [30, 310, 10]
