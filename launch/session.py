"""What rank 0 does for all ranks: open the run's record, keep it, save checkpoints, close it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.profiler import record_function

from configs import Config
from launch.meeting import RunError
from launch.process import Process, print_once
from record import checkpoints, hellaswag, runlog, sequences
from record.hardware import environment, reset_peak_memory
from record.metrics import summarize
from record.resume import changed_code, former_folder, open_run, other_version
from record.screen import closing

T = TypeVar("T")


def agreed_hashes(
    process: Process, hashes_of: Callable[[bool], dict[str, str]], *errors: type[Exception]
) -> dict[str, str]:
    """Hashes of the data, equal on all ranks.

    hashes_of: computes them; given True it reads all shards, as one rank of each node does, before
    it adds "data". errors: it may raise them.

    Raises:
        RunError: it raised one, or a rank has other data; on all ranks.
    """
    hashes: dict[str, str] = {}
    with process.naming_lost_peers():  # reading may take long
        with process.agreeing(*errors):
            hashes = hashes_of(process.local_rank == 0)
        of_rank_0 = process.broadcast(hashes)
        process.agree(_other_data(process, hashes, of_rank_0))
    return of_rank_0


def already_ended(process: Process, config: Config, hashes: Mapping[str, str]) -> int | None:
    """If the run has finished or diverged already, print so and return its exit code; else None.

    Raises:
        RunError: it did so on other data; on all ranks.
    """
    return process.broadcast(_on_rank_0(process, lambda: _ended(config, hashes)))


def _ended(config: Config, hashes: Mapping[str, str]) -> int | None:
    summary = runlog.read_summary(config.directory)
    if not summary or summary["status"] == "stopped":
        return None
    record = runlog.read_record(config.directory) or {}
    runlog.require_same(config.directory, record.get("hashes", {}), hashes)
    print_once(
        f"{config.directory} has {summary['status']} already, see its summary.json; another --seed "
        "is another run; remove the folder to repeat this one"
    )
    if config.eval.hellaswag and hellaswag.NAME not in record.get("hashes", {}):
        print_once(
            "this run did not answer eval.hellaswag's questions; python -m analysis hellaswag"
            f" {config.directory} --questions {config.eval.hellaswag} asks them now"
        )
    return runlog.EXIT_CODES[summary["status"]]


def open_record(
    process: Process, config: Config, origins: Mapping[str, str], hashes: Mapping[str, str]
) -> tuple[runlog.Log, Path | None]:
    """The run's record, and the checkpoint to resume from (None: from step 0).

    origins: of hyperparameters, as configs.origins gives them. hashes: of the data.

    Raises:
        RunError: the folder cannot be used, is not the same on all nodes, or holds a run that began
            on other data or hardware; on all ranks.
    """
    if process.rank == 0:
        for line in filter(None, (other_version(config, origins), former_folder(config))):
            print(line, flush=True)
    hardware = process.hardware(config)
    opened = _on_rank_0(process, lambda: open_run(config, hashes, hardware))
    checkpoint, problem = process.broadcast(opened and opened[1]), None
    if checkpoint and not checkpoint.exists():
        problem = f"{checkpoint} is not on {process.host}: all nodes need the same --log.dir"
    process.agree(problem)
    return opened[0] if opened else runlog.NoLog(), checkpoint


def record_launch(
    process: Process,
    config: Config,
    log: runlog.Log,
    hashes: Mapping[str, str],
    facts: Mapping[str, Any],
) -> None:
    """Record the hash of the "weights" that this launch starts with, and where it runs.

    Only rank 0's are recorded. A line says so if a run is resumed by other code. From here on the
    peak of memory is that of training.

    Raises:
        RunError: the weights are not those that the run began with; on all ranks.
    """
    where = environment() | process.hardware(config) | {"world_size": process.world_size}
    _on_rank_0(process, lambda: log.begin(hashes, where | dict(facts)))
    if process.rank == 0 and (line := changed_code(log.facts["launches"], facts["start_step"])):
        print(line, flush=True)
    reset_peak_memory(process.device)


def _other_data(
    process: Process, hashes: Mapping[str, str], of_rank_0: Mapping[str, str]
) -> str | None:
    """What differs between this rank's data and rank 0's."""
    for name, first in of_rank_0.items():
        unread = name == "data" and name not in hashes  # another rank of this node has read them
        if hashes.get(name) != first and not unread:
            what, mine = runlog.HASHED.get(name, name), hashes.get(name, "none")[:8]
            asked = name == hellaswag.NAME
            key, files = ("eval.hellaswag", "file") if asked else ("data.dir", "shards")
            return (
                f"{process.host} (rank {process.rank}) has other data in {key} than rank 0: the"
                f" hash of {what} is {mine}, not {first[:8]}; copy the same {files} to all nodes"
            )
    return None


def require_equal_replicas(process: Process, config: Config, model: nn.Module, step: int) -> None:
    """Compare the weights of all ranks, to the bit; without a second rank, do nothing.

    Raises:
        RunError: they differ; on all ranks, with the names of those that do.
    """
    if process.world_size == 1:
        return
    assert process.heartbeat
    hosts = process.heartbeat.hosts
    sums = process.each(checkpoints.checksum(model))
    usual = max(sums, key=sums.count)
    if odd := [rank for rank, number in enumerate(sums) if number != usual]:
        first, more = sums.index(usual), sums.count(usual) - 1
        names = ", ".join(f"{rank} on {hosts[rank]}" for rank in odd)
        raise RunError(
            f"stopped at step {step}: the weights of rank {names} are not those of rank {first} on"
            f" {hosts[first]}{f' and {more} more' if more else ''}: a fault of a machine, or an"
            " optimizer whose updates differ by rank; at the evaluation before they were equal:"
            f" remove later checkpoints from {config.directory}, then give the same command again"
        )


@record_function("checkpoint")
def save_checkpoint(
    process: Process, config: Config, log: runlog.Log, state: Any, *, wait: bool
) -> None:
    """Write a checkpoint, after the lines of metrics.jsonl that belong to it are on disk.

    Unless `wait`, it is copied now and written on a thread. If that fails, `log.failure` says so,
    and the next call raises it.

    state: progress, metrics, model and optimizer, as attributes.

    Raises:
        RunError: it, a line or the checkpoint before it cannot be written; on all ranks, which
            stop together.
    """
    weights = state.optimizer.whole_state_dict(), _evaluated(state)  # all ranks take part
    remedy = "earlier checkpoints are intact: make room, then give the same command again"
    problem = f"stopped at step {state.progress.step}: {{}}; {remedy}"
    parts = config.run_name, config.toml(), state.progress, state.metrics, state.model, *weights
    _on_rank_0(process, lambda: _save(config, log, parts, wait), problem)


def _save(config: Config, log: runlog.Log, parts: tuple[Any, ...], wait: bool) -> None:
    assert isinstance(log, runlog.RunLog), "only rank 0 saves"
    log.writer.wait()
    saved = checkpoints.capture(log, *parts)

    def write(saved: checkpoints.Checkpoint) -> None:
        log.sync()  # a power cut must not take a line that the checkpoint counts
        checkpoints.save(config.directory / "checkpoints", config.checkpoint.keep, saved)

    if wait or not config.checkpoint.background:
        write(saved)
    else:
        log.writer.write(saved, write)


def _evaluated(state: Any) -> dict[str, Tensor] | None:
    """On the CPU: the weights that an evaluation uses, where they are not those of training."""
    if not state.optimizer.averages_weights:
        return None
    try:
        state.optimizer.eval_mode()
        found = {name: t.to("cpu", copy=True) for name, t in state.model.state_dict().items()}
    finally:
        state.optimizer.train_mode()
    trained = state.model.state_dict().items()
    return None if all(t.cpu().equal(found[name]) for name, t in trained) else found


def record_losses(
    process: Process,
    config: Config,
    log: runlog.Log,
    step: int,
    losses: Mapping[str, Tensor],
    seconds: float,
) -> dict[str, float]:
    """Log the mean of each of `losses` (by sequence, nats per token); returns them by their names.

    After the last update the losses of all sequences go to a file of the run.

    losses: by split, and with averaged weights by "<split>_<average>", which the file leaves out.
        Of "hellaswag": which questions were answered rightly, 1 or 0.

    Raises:
        RunError: the file cannot be written; on all ranks.
    """
    if step == config.train.total_steps:
        arrays = {split: losses[split].numpy() for split in ("val", "test") if split in losses}
        _on_rank_0(process, lambda: sequences.write(config.directory, arrays))
    found: dict[str, float] = {}
    for name, values in losses.items():
        split = name.split("_")[0]
        average = name.removeprefix(split)  # "_<name>" of averaged weights, else ""
        if split == hellaswag.NAME:
            found |= hellaswag.numbers(values, average)
        else:
            found[f"{split}/loss{average}"] = values.double().mean().item()
    log.log(step, {**found, "time/eval_seconds": seconds})
    return found


def close_record(
    process: Process,
    config: Config,
    log: runlog.Log,
    status: runlog.Status,
    facts: Mapping[str, Any],
) -> None:
    """Write the summary: what the metrics say, and `facts`; then print the closing lines.

    Raises:
        RunError: it cannot be written; on all ranks.
    """
    _on_rank_0(process, lambda: _close(config, log, status, facts))


def _close(
    config: Config, log: runlog.Log, status: runlog.Status, facts: Mapping[str, Any]
) -> None:
    metrics = runlog.read_metrics(config.directory)
    found = summarize(metrics, config.train.total_steps)
    summary = {**found, "run": config.run_name, **facts}
    log.finish(status, summary)
    if status == "finished":
        print(closing(summary, config.directory))


def _on_rank_0(process: Process, work: Callable[[], T], problem: str = "{}") -> T | None:
    """Do `work` on rank 0 alone; returns its result there and None elsewhere.

    Raises:
        RunError: `work` raised RecordError or OSError; on all ranks, with its text in `problem`.
    """
    result, said = None, None
    if process.rank == 0:
        try:
            result = work()
        except (runlog.RecordError, OSError) as error:
            said = problem.format(error)
    process.agree(said)
    return result
