"""Checkpoint files: whole or absent."""

from pathlib import Path

import pytest
import torch

from optim import build_optimizer
from record import checkpoints
from record.runlog import RecordError
from tests.jobs import assert_same


def put(folder, step, content=b"state", keep=3):
    return checkpoints.write(folder, step, keep, lambda file: file.write(content))


def test_saved_content_is_what_was_written_and_found_whole(tmp_path):
    path = put(tmp_path / "c", 7, b"abc" * 1000)
    assert path.read_bytes() == b"abc" * 1000
    assert checkpoints.newest_whole(tmp_path / "c") == path


def test_last_ones_are_kept_and_newest_comes_first(tmp_path):
    for step in (5, 100, 20, 3000):
        put(tmp_path, step, b"%d" % step)
    assert [checkpoints.step_of(p) for p in checkpoints.found(tmp_path)] == [3000, 100, 20]


def test_same_step_saved_twice_gives_the_later(tmp_path):
    put(tmp_path, 5, b"one")
    later = put(tmp_path, 5, b"two")
    assert checkpoints.newest_whole(tmp_path) == later


def test_failure_while_writing_leaves_the_earlier_ones_and_no_rest(tmp_path):
    good = put(tmp_path, 1)

    def fail(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left on device"):
        checkpoints.write(tmp_path, 2, 3, fail)
    assert list(tmp_path.iterdir()) == [good]


def test_torn_file_is_passed_over_and_named(tmp_path, capsys):
    good = put(tmp_path, 1)
    torn = put(tmp_path, 2, b"x" * 100)
    torn.write_bytes(b"x" * 50)
    assert checkpoints.newest_whole(tmp_path) == good
    assert torn.stem in capsys.readouterr().err


def test_torn_file_of_a_later_step_does_not_push_out_the_whole_ones(tmp_path):
    put(tmp_path, 8, keep=1)
    put(tmp_path, 11, b"x" * 100, keep=2).write_bytes(b"x")
    checkpoints.newest_whole(tmp_path)
    ours = put(tmp_path, 10, b"y", keep=1)
    assert checkpoints.found(tmp_path) == [ours]
    assert checkpoints.newest_whole(tmp_path) == ours


def test_what_was_just_written_is_never_removed(tmp_path):
    put(tmp_path, 11, keep=1)
    ours = put(tmp_path, 10, b"y", keep=1)
    assert ours in checkpoints.found(tmp_path)


def test_rest_of_a_killed_write_is_no_checkpoint(tmp_path):
    (tmp_path / "partial").write_bytes(b"half")
    assert checkpoints.newest_whole(tmp_path) is None
    put(tmp_path, 3)
    assert [p.name[:13] for p in tmp_path.iterdir()] == ["step-00000003"]


def test_nothing_whole_is_an_error_that_says_how_to_go_on(tmp_path):
    put(tmp_path, 1).write_bytes(b"")
    with pytest.raises(RecordError, match="remove"):
        checkpoints.newest_whole(tmp_path)


def stepped(name, wrap, seed):
    """Weights of two parameters, and their optimizer after one step."""
    generator = torch.Generator().manual_seed(seed)
    weights = [torch.nn.Parameter(torch.randn(s, generator=generator)) for s in ((64, 32), (64,))]
    roles = {"hidden": weights[0], "vector": weights[1]}
    groups = [{"role": k, "params": [p], "names": [k]} for k, p in roles.items()]
    optimizer = build_optimizer(name, groups, lr=1e-3, wrap=wrap)
    for p in weights:
        p.grad = torch.randn(p.shape, generator=generator)
    optimizer.step()
    return weights, optimizer


@pytest.mark.parametrize(
    ("name", "wrap"),
    [
        *[(name, None) for name in ("adamw", "radam", "lion", "muon", "soap", "sgd_sai")],
        ("schedule_free_adamw", None),
        ("adamw", {"ema": {}}),
    ],
)
def test_state_leaves_the_file_that_it_was_read_from(tmp_path, name, wrap):
    """Its blocks would stay on the disk once it is removed, and on a network it would be gone."""
    weights, optimizer = stepped(name, wrap, seed=1)
    path = tmp_path / "state"
    torch.save(optimizer.state_dict(), path)
    again, resumed = stepped(name, wrap, seed=2)
    checkpoints.put_state(resumed, torch.load(path, mmap=True))
    assert str(path) not in Path("/proc/self/maps").read_text()
    assert_same(resumed.state_dict(), optimizer.state_dict())
    for a, b in zip(weights, again, strict=True):
        b.data.copy_(a.data)
        b.grad = a.grad
    optimizer.step()
    resumed.step()
    assert all(map(torch.equal, weights, again))
