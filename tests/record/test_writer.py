"""The thread that writes: what it writes is what was given, and its failures come out."""

import io
import threading

import pytest
import torch

from record.checkpoints import Checkpoint, Progress
from record.writer import Writer


@pytest.fixture
def writer():
    writer = Writer()
    yield writer
    writer.close()


@pytest.fixture
def held(writer):
    """A write that does not end before the event is set."""
    event = threading.Event()
    writer.write(None, lambda _: event.wait(60))
    yield event
    event.set()


def kept(writer, value):
    """The copy that the thread got."""
    got = []
    writer.write(value, got.append)
    writer.wait()
    return got[0]


def saved(value):
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def test_later_changes_do_not_reach_what_is_written(writer):
    progress = Progress(step=3, metrics={"loss": {"values": [1.0, 2.0]}})
    state = {0: {"exp_avg": torch.ones(3, 2), "step": torch.tensor(3.0)}}
    optimizer = {"state": state, "param_groups": [{"lr": 0.1, "params": [0], "betas": (0.9, 0.95)}]}
    value = Checkpoint("run", "toml", progress, {"wte": torch.full((2,), 7.0)}, optimizer)
    copy = kept(writer, value)
    before = Checkpoint(**vars(copy))
    before.progress = Progress(**vars(copy.progress))
    as_it_was = saved({**vars(before), "progress": vars(before.progress)})
    progress.step = 4
    progress.metrics["loss"]["values"].append(3.0)
    state[0]["exp_avg"].zero_()
    state[0]["step"] += 1
    value.model["wte"].zero_()
    optimizer["param_groups"][0]["lr"] = 0.2
    assert saved({**vars(copy), "progress": vars(copy.progress)}) == as_it_was
    assert copy.progress == Progress(step=3, metrics={"loss": {"values": [1.0, 2.0]}})
    assert copy.optimizer["state"][0]["exp_avg"].tolist() == [[1.0, 1.0]] * 3
    assert copy.optimizer["param_groups"] == [{"lr": 0.1, "params": [0], "betas": (0.9, 0.95)}]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int64, torch.bool])
def test_a_file_of_the_copy_is_the_file_of_the_original(writer, dtype):
    """Views, strides and shared memory are kept, as torch.save keeps them."""
    whole = torch.arange(48).reshape(6, 8).to(dtype)
    given = {"whole": whole, "view": whole[1:3, ::2], "turned": whole.T, "none": whole[:0]}
    given |= {"alone": whole.clone(), "number": torch.ones((), dtype=dtype), "no": torch.empty(0)}
    given["weight"] = torch.nn.Parameter(torch.ones(3), requires_grad=False)
    copy = kept(writer, given)
    assert copy["view"].untyped_storage().data_ptr() == copy["whole"].data_ptr()
    assert copy["whole"].data_ptr() != whole.data_ptr()
    assert saved(copy) == saved(given | {"weight": given["weight"].detach()})


def test_the_same_memory_is_used_again(writer):
    first = kept(writer, [torch.zeros(5), torch.zeros(7)])
    places = [x.data_ptr() for x in first]
    second = kept(writer, [torch.ones(5), torch.ones(7)])
    assert [x.data_ptr() for x in second] == places
    assert [x.tolist() for x in second] == [[1.0] * 5, [1.0] * 7]
    grown = kept(writer, [torch.ones(5), torch.ones(8), torch.ones(2)])
    assert [len(x) for x in grown] == [5, 8, 2]
    assert grown[0].data_ptr() == places[0]


def test_what_is_neither_a_tensor_nor_a_container_is_copied_as_python_does(writer):
    sparse, pair = torch.eye(3).to_sparse(), {"a": {1, 2}}
    copy = kept(writer, [sparse, pair, None, "text"])
    sparse.zero_()
    pair["a"].add(3)
    assert copy[0].to_dense().equal(torch.eye(3))
    assert copy[1:] == [{"a": {1, 2}}, None, "text"]


def test_one_write_waits_for_the_one_before_and_leaves_its_copy_alone(writer):
    seen, go = [], threading.Event()
    writer.write(torch.ones(3), lambda copy: (go.wait(60), seen.append(copy.tolist())))
    threading.Timer(0.05, go.set).start()
    writer.write(torch.zeros(3), lambda copy: seen.append(copy.tolist()))
    writer.wait()
    assert seen == [[1.0] * 3, [0.0] * 3]


def test_a_failure_shows_as_soon_as_it_is_there_and_comes_out_of_the_next_call(writer, held):
    assert writer.failure is None  # under way
    held.set()
    writer.wait()
    assert writer.failure is None
    full = OSError(28, "No space left on device")

    def fail(_):
        raise full

    writer.write(None, fail)
    with pytest.raises(OSError, match="No space left"):
        writer.wait()
    assert writer.failure is full
    with pytest.raises(OSError, match="No space left"):
        writer.write(None, fail)
    writer.close()  # at the end of a run that fails anyway


def test_the_end_waits_for_the_write(writer):
    done = []
    go = threading.Event()
    writer.write(None, lambda _: (go.wait(60), done.append(1)))
    threading.Timer(0.05, go.set).start()
    writer.close()
    assert done == [1]
