"""Train GPT-2 with any optimizer and any learning-rate schedule, by name. Read from the top.

    torchrun --nproc_per_node=8 train_gpt2.py                     # GPT-2 124M on FineWeb
    torchrun --nproc_per_node=8 train_gpt2.py configs/gpt2_124m.toml configs/schedule/wsd.toml \
        --optimizer.lr 3e-4 --seed 2
    python train_gpt2.py configs/quickstart.toml                  # one process, CPU or GPU

Killed at any moment, the same command goes on from the last whole checkpoint to the same bits.
Exit codes: 0 finished, or stopped by a signal after a checkpoint; 2 something to mend, said in one
line; 3 diverged (a loss or gradient that is not finite); 1 another rank was lost, which a line
names. torchrun itself turns all but 0 into 1.
"""

from __future__ import annotations

import hashlib
import math
import os
import pickle
import sys
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

import optim
from configs import Batch, Config, ConfigError, Model, load, usage
from data import DataError, Loader, Validation, first_batches_hash, open_split
from launch.process import LostPeerError, Process, RunError
from launch.signals import end_with_parent, stop_requests
from record import checkpoints, runlog
from record.hardware import environment, peak_flops, peak_memory_gib
from record.metrics import StreamMetrics, summarize
from record.screen import Screen, closing

# ------------------------------------------------------------------------------------ the model


class Attention(nn.Module):
    """Causal multi-head self-attention; c_attn holds Q, K, V as rows 0:C, C:2C, 2C:3C."""

    def __init__(self, shape: Model) -> None:
        super().__init__()
        self.n_head = shape.n_head
        self.c_attn = nn.Linear(shape.n_embd, 3 * shape.n_embd)
        self.c_proj = nn.Linear(shape.n_embd, shape.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        b, t, c = x.shape
        q, k, v = self.c_attn(x).view(b, t, 3, self.n_head, c // self.n_head).unbind(2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, T, C/heads)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.c_proj(y.transpose(1, 2).reshape(b, t, c))


class MLP(nn.Module):
    """Two linear maps with GPT-2's tanh form of GELU between them."""

    def __init__(self, shape: Model) -> None:
        super().__init__()
        self.c_fc = nn.Linear(shape.n_embd, 4 * shape.n_embd)
        self.c_proj = nn.Linear(4 * shape.n_embd, shape.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.c_proj(F.gelu(self.c_fc(x), approximate="tanh"))


class Block(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, shape: Model) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(shape.n_embd)
        self.attn = Attention(shape)
        self.ln_2 = nn.LayerNorm(shape.n_embd)
        self.mlp = MLP(shape)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        x = x + self.attn(self.ln_1(x))
        return x + self.mlp(self.ln_2(x))


class GPT(nn.Module):
    """GPT-2 (Radford et al. 2019): learned positions, head tied to the token embedding.

    The embedding has padded rows up to a multiple of 64, which tensor cores prefer: they are zero,
    no input reads them and no logit comes from them, so they get no gradient and stay zero. They
    add nothing to a norm; a mean over the 50,304 rows is 0.1 % smaller for 47 of them.
    """

    def __init__(self, shape: Model) -> None:
        super().__init__()
        self.shape = shape
        self.wte = nn.Embedding(math.ceil(shape.vocab_size / 64) * 64, shape.n_embd)
        self.wpe = nn.Embedding(shape.block_size, shape.n_embd)
        self.h = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.ln_f = nn.LayerNorm(shape.n_embd)

    @classmethod
    def initialised(cls, shape: Model, seed: int) -> GPT:
        """On the CPU, with GPT-2's initial weights: a function of the shape and the seed alone."""
        with torch.device("meta"):  # skips torch's own initialisation
            model = cls(shape)
        model = model.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed)
        for name, p in model.named_parameters():
            if p.ndim < 2:
                nn.init.constant_(p, float(".ln_" in f".{name}" and name.endswith("weight")))
                continue
            # Every block adds two projections to the residual stream, whose variance would grow.
            std = 0.02 / math.sqrt(2 * shape.n_layer) if name.endswith("c_proj.weight") else 0.02
            nn.init.normal_(p.data[: shape.vocab_size] if name == "wte.weight" else p.data,
                            std=std, generator=generator)  # fmt: skip
        nn.init.zeros_(model.wte.weight.data[shape.vocab_size :])
        return model

    def logits(self, tokens: Tensor) -> Tensor:
        """(B, T) token ids -> (B, T, vocab_size)."""
        positions = torch.arange(tokens.size(1), device=tokens.device)
        x = self.wte(tokens) + self.wpe(positions)
        for block in self.h:
            x = block(x)
        return F.linear(self.ln_f(x), self.wte.weight)[..., : self.shape.vocab_size]

    def forward(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """(B, T) token ids and the ids that follow them -> mean cross-entropy, nats per token.

        Uniform numbers in place of those ids draw them from the model's own predictions.
        """
        logits = self.logits(tokens)
        if targets.is_floating_point():
            cumulative = logits.detach().float().softmax(-1).cumsum(-1)  # ends near 1, not at it
            drawn = torch.searchsorted(cumulative, targets[..., None], right=True)
            targets = drawn.clamp(max=self.shape.vocab_size - 1)
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters by role: hidden matrices, embeddings (the head is tied), vectors (no decay).

        The same groups for every optimizer, or a comparison of optimizers compares groupings.
        """
        groups: dict[str, dict[str, Any]] = {
            "hidden": {},
            "embedding": {},
            "vector": {"weight_decay": 0.0},
        }
        for name, p in self.named_parameters():
            role = "vector" if p.ndim < 2 else "hidden" if name.startswith("h.") else "embedding"
            groups[role].setdefault("params", []).append(p)
            groups[role].setdefault("names", []).append(name)
        return [{"role": role, **group} for role, group in groups.items()]

    def num_parameters(self) -> int:
        """Without the padded rows: 124,439,808 for GPT-2 124M."""
        padding = self.wte.num_embeddings - self.shape.vocab_size
        return sum(p.numel() for p in self.parameters()) - padding * self.shape.n_embd

    def flops_per_token(self) -> int:
        """Forward and backward: 6 N + 12 layers x width x context; N without the positions."""
        n = self.num_parameters() - self.wpe.weight.numel()
        return 6 * n + 12 * self.shape.n_layer * self.shape.n_embd * self.shape.block_size

    def weights_hash(self) -> str:
        """sha256 of all weights in the order of their names: equal starts have equal hashes."""
        digest = hashlib.sha256()
        for name, p in sorted(self.named_parameters()):
            digest.update(name.encode())
            digest.update(p.detach().cpu().numpy().tobytes())
        return digest.hexdigest()


EXIT_CODES = {"finished": 0, "stopped": 0, "diverged": 3}  # 2: something to mend

# ------------------------------------------------------------------------------------ evaluation


@torch.no_grad()
def evaluate(
    model: nn.Module,
    validation: Validation,
    rows: int,
    process: Process,
    autocast: AbstractContextManager[Any],
) -> float:
    """Mean loss, nats per token, over the same tokens for any number of ranks and rows at once."""
    model.eval()
    loss_sum, tokens = torch.zeros((), dtype=torch.float64, device=process.device), 0
    for batch in validation.batches(rows):
        chunk = batch.to(process.device, non_blocking=True)
        with autocast:
            loss = model(chunk[:, :-1], chunk[:, 1:])
        loss_sum += loss.double() * (chunk.numel() - len(chunk))
        tokens += chunk.numel() - len(chunk)
    model.train()
    total = process.sum(torch.stack([loss_sum, loss_sum.new_tensor(tokens)]))
    return (total[0] / total[1]).item()


# ----------------------------------------------------------------------------------- preparation


@dataclass
class Progress:
    """Where the run is: all that a checkpoint holds besides the model and the optimizer."""

    step: int = 0  # updates done
    train_seconds: float = 0.0  # on the loop's clock
    evaluated: int = -1  # step of the last evaluation
    metrics: dict[str, Any] = field(default_factory=dict)  # state of StreamMetrics
    log_offset: int = 0  # bytes of metrics.jsonl


def resolve(config: Config) -> Config:
    """The configuration with every hyperparameter of its optimizer and schedule."""
    return config.resolved(optim.resolve_optimizer, optim.resolve_schedule)


def load_checkpoint(path: Path, config: Config, mmap: bool = False) -> dict[str, Any]:
    """The saved state, with `mmap` read as needed; refuses another configuration's (RunError)."""
    try:
        state: dict[str, Any] = torch.load(path, "cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        name = config.optimizer.name
        raise RunError(f"{path} cannot be read; the state of {name} may hold more than tensors and "
                       f"plain values: {str(error).splitlines()[0]}") from None  # fmt: skip
    if state["run"] != config.run_name:
        raise RunError(f"{path} is of run {state['run']}, not of {config.run_name}; move it away")
    return state


def build_optimizer(config: Config, model: GPT) -> optim.Optimizer:
    """The optimizer of the configuration over the model's parameter groups."""
    name, groups = config.optimizer.name, model.parameter_groups()
    return optim.build_optimizer(name, groups, **config.optimizer.hyperparameters)


def open_record(config: Config, directory: Path) -> tuple[runlog.RunLog, Path | None]:
    """Rank 0: the run's record, alone in its folder, and the checkpoint to go on from."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        held = runlog.lock(directory, wait_seconds=30)
        checkpoint = checkpoints.newest_whole(directory / "checkpoints")
        offset = None
        if checkpoint:
            offset = load_checkpoint(checkpoint, config, mmap=True)["progress"]["log_offset"]
        where = config.log.model_dump(include={"project", "entity", "group", "job_type"})
        wandb = runlog.WandbOptions(mode=config.log.wandb, name=config.run_name, **where)
        log = runlog.RunLog(directory, config_toml=config.toml(), config=config.table(),
                     resume_offset=offset, wandb=wandb, held=held)  # fmt: skip
    except OSError as error:
        raise RunError(
            f"cannot write the run's folder {directory}: {error}; give another with --log.dir"
        ) from None
    return log, checkpoint


def main(argv: Sequence[str]) -> int:
    """Run one command line; returns the exit code."""
    end_with_parent()
    speaks = int(os.environ.get("LOCAL_RANK", 0)) == 0  # one process on each node
    try:
        if "--help" in argv or "-h" in argv:
            text = usage()
        else:
            config = resolve(load([word for word in argv if word != "--print-config"]))
            if "--print-config" not in argv:
                return run(config)
            text = f"# folder: {Path(config.log.dir) / config.run_name}\n{config.toml()}"
        if speaks:
            print(text)
        return 0
    except LostPeerError:
        return 1
    except (ConfigError, DataError, runlog.RecordError, RunError) as error:
        if speaks:
            print(f"error: {error}", file=sys.stderr)
        elif int(os.environ.get("WORLD_SIZE", 1)) > 1:
            time.sleep(10)  # the first failure has torchrun end all ranks: let it be one that spoke
        return 2


# ------------------------------------------------------------------------------------------- run


def run(config: Config) -> int:
    """Check everything that can be checked before a GPU is touched, open the record, train."""
    process = Process.from_environment(config.train.device)
    batch = Batch.divide(config, process.world_size)
    shape, steps = config.model, config.train.total_steps
    schedule = optim.build_schedule(config.schedule.name, steps, **config.schedule.hyperparameters)
    with torch.device("meta"):
        build_optimizer(config, GPT(shape))  # refuses what it will not take
    train_tokens, val_tokens = (
        open_split(config.data.dir, split, vocab_size=shape.vocab_size, format=config.data.format)
        for split in ("train", "val")
    )
    ranks = {"block_size": shape.block_size, "rank": process.rank, "world_size": process.world_size}
    loader = Loader(train_tokens, batch_size=batch.size, data_seed=config.data_seed, **ranks)
    validation = Validation(val_tokens, num_tokens=config.eval.tokens, **ranks)
    directory = Path(config.log.dir) / config.run_name
    summary = runlog.read_summary(directory)
    if summary and summary["status"] != "stopped":
        if process.rank == 0:
            print(f"{directory} has {summary['status']} already, see its summary.json; another "
                  "--seed is another run; remove the folder to repeat this one")  # fmt: skip
        return EXIT_CODES[summary["status"]]
    process.join(config)
    log: runlog.RunLog | runlog.NoLog = runlog.NoLog()
    checkpoint, problem = None, None
    try:
        with stop_requests() as signals:
            if process.rank == 0:
                try:
                    log, checkpoint = open_record(config, directory)
                except (RunError, runlog.RecordError) as error:
                    problem = str(error)
            process.agree(problem)
            checkpoint = process.broadcast(checkpoint)
            if checkpoint and not checkpoint.exists():
                problem = (
                    f"{checkpoint} is not on {process.host}: all nodes need the same --log.dir"
                )
            process.agree(problem)
            with log, process.naming_lost_peers():
                status = train(config, process, batch, schedule, loader, validation, log,
                               checkpoint, signals)  # fmt: skip
    except RunError:  # on all ranks, or on rank 0 with nothing left to do for the others
        process.leave()
        raise
    process.leave()
    return EXIT_CODES[status]


def train(
    config: Config,
    process: Process,
    batch: Batch,
    schedule: optim.Schedule,
    loader: Loader,
    validation: Validation,
    log: runlog.RunLog | runlog.NoLog,
    checkpoint: Path | None,
    signals: list[str],
) -> runlog.Status:
    """Build or restore, loop, summarise; returns how the run ended."""
    # ---- model, optimizer, and where an earlier launch left them
    settings, shape = config.train, config.model
    directory = Path(config.log.dir) / config.run_name
    model = GPT.initialised(shape, config.seed)
    weights_hash = model.weights_hash() if process.rank == 0 else ""
    model = model.to(process.device)
    optimizer = build_optimizer(config, model)
    optimizer.check_gradients = False  # the loop looks at their norm before every step
    progress, stream = Progress(), StreamMetrics(settings.total_steps)
    if checkpoint:
        state = load_checkpoint(checkpoint, config)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        progress = Progress(**state["progress"])
        stream.load_state_dict(progress.metrics)
        del state
    cuda = process.device.type == "cuda"
    compiled: nn.Module = model
    if settings.compile is True or (settings.compile == "auto" and cuda):
        compiled = torch.compile(model, dynamic=False)  # type: ignore[assignment]
    parallel = compiled
    if process.world_size > 1:
        gpus = [process.local_rank] if cuda else None
        parallel = DistributedDataParallel(compiled, gpus, gradient_as_bucket_view=True)
    dtype = settings.dtype
    if dtype == "auto":
        native = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
        dtype = "bfloat16" if native else "float32"
    if dtype == "float32":
        torch.set_float32_matmul_precision("high")  # TF32 where a GPU has it
    autocast = torch.autocast(process.device.type, torch.bfloat16, enabled=dtype == "bfloat16")

    # One pass before the clock: it compiles, and DDP settles its buckets, so that a resumed run
    # adds gradients in the same order as one that was never interrupted.
    began = time.perf_counter()
    tokens = torch.zeros(batch.micro, shape.block_size + 1, dtype=torch.int64).to(process.device)
    with autocast:  # the strides are those of the loop, or it would compile again
        parallel(tokens[:, :-1], tokens[:, 1:]).backward()
        if any(map(optimizer.curvature_due, range(progress.step, settings.total_steps))):
            parallel(tokens[:, :-1], tokens[:, 1:].float()).backward()
    model.zero_grad(set_to_none=True)
    optimizer.warm_up()
    process.synchronize()

    device_name = torch.cuda.get_device_name(process.device) if cuda else "cpu"
    micro_batches = batch.rows // batch.micro
    problem: str | None = None
    if process.rank == 0:
        facts = {"warm_up_seconds": time.perf_counter() - began, "dtype": dtype}
        facts |= {"world_size": process.world_size, "start_step": progress.step}
        hashes = {"weights": weights_hash, "batches": first_batches_hash(loader)}
        began_with = log.facts.get("hashes", hashes)
        if began_with["batches"] != hashes["batches"]:
            problem = f"{config.data.dir} is not what this run began with: its first batches have "
            problem += f"hash {hashes['batches'][:8]}, then {began_with['batches'][:8]}"
        else:
            log.record(hashes=hashes, environment=environment() | facts)
        since = f", from step {progress.step}" if checkpoint else ""
        print(f"run    {directory}{since}")
        print(f"model  {model.num_parameters():,} parameters, {dtype}, on {device_name}")
        cut = (
            f"{process.world_size} ranks x {micro_batches} micro-batches x {batch.micro} sequences"
        )
        print(f"batch  {settings.batch_tokens:,} tokens = {cut} x {shape.block_size}")
        print(
            f"data   {config.data.dir}: {loader.epoch(settings.total_steps):.2f} epochs", flush=True
        )
        if conflict := optimizer.check_schedule(schedule):
            print(f"warning: {conflict}")
    process.agree(problem)

    # ---- the loop
    start_step = progress.step
    status: runlog.Status = "finished"
    peak = peak_flops(device_name, "tf32" if dtype == "float32" else dtype)
    parameters = list(model.parameters())
    arm = f"{config.optimizer.name} and {config.schedule.name}"
    failure: str | None = None  # why rank 0 cannot keep the record
    screen = Screen(settings.total_steps, start_step, config.log.print_every, process.rank == 0)

    def backward(rows: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Gradients of the mean loss of all ranks; returns this rank's. `uniform` draws labels."""
        total = torch.zeros((), device=process.device)
        for i, chunk in enumerate(rows.split(batch.micro)):
            if process.world_size > 1:  # gradients meet on the last micro-batch only
                parallel.require_backward_grad_sync = i == micro_batches - 1  # type: ignore
            chunk = chunk.to(process.device, non_blocking=True)
            targets = chunk[:, 1:] if uniform is None else uniform[i * batch.micro :][: batch.micro]
            with autocast:
                loss = parallel(chunk[:, :-1], targets) / micro_batches
            loss.backward()
            total += loss.detach()
        return total

    def record(step: int, values: dict[str, Any]) -> None:
        nonlocal failure
        try:
            log.log(step, values)
        except OSError as error:
            failure = failure or f"cannot write {directory / 'metrics.jsonl'}: {error}"

    def save() -> None:
        """Checkpoint by rank 0; all ranks end together if it cannot be written."""
        problem = failure
        if process.rank == 0 and not problem:
            try:
                progress.metrics, progress.log_offset = stream.state_dict(), log.offset()
                state = {
                    "run": config.run_name,
                    "config": config.toml(),
                    "progress": vars(progress),
                }
                state |= {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
                checkpoints.save(directory / "checkpoints", progress.step, config.checkpoint.keep,
                                 lambda file: torch.save(state, file))  # fmt: skip
            except OSError as error:
                problem = str(error)
        if problem:
            problem = (f"stopped at step {progress.step}: {problem}; the checkpoints before it are "
                       "whole: make room, then give the same command again")  # fmt: skip
        process.agree(problem)

    with screen, loader.batches(start_step, pin_memory=cuda) as batches:
        while True:
            step = progress.step
            last = step == settings.total_steps
            if (last or step % config.eval.every == 0) and progress.evaluated != step:
                began = time.perf_counter()
                optimizer.eval_mode()
                val_loss = evaluate(compiled, validation, batch.micro, process, autocast)
                optimizer.train_mode()
                progress.evaluated = step
                seconds = time.perf_counter() - began
                record(step, {"val/loss": val_loss, "time/eval_seconds": seconds})
                screen.evaluated(step, val_loss)
                if not math.isfinite(val_loss):
                    status = "diverged"
                    screen.say(
                        f"diverged: validation loss {val_loss} after {step} updates with {arm}"
                    )
                    break
            due = config.checkpoint.every and step % config.checkpoint.every == 0
            if last or (due and step > start_step):
                save()
            if last:
                break

            # The clock is training time: it runs from here to the end of the update.
            began = time.perf_counter()
            # Random numbers are a function of (seed, step), equal on all ranks: nothing to save.
            torch.manual_seed((config.seed << 32) + step)
            rows = next(batches)
            if optimizer.curvature_due(step):  # a draw belongs to its row, whatever the ranks
                uniform = torch.rand(batch.size, shape.block_size)[process.rank * batch.rows :]
                backward(rows, uniform[: batch.rows].to(process.device))
                optimizer.update_curvature(settings.batch_tokens)
                optimizer.zero_grad(set_to_none=True)
            sums = torch.zeros(2, device=process.device)  # over ranks: loss, requests to stop
            sums[0] = backward(rows)
            norm = nn.utils.clip_grad_norm_(parameters, settings.grad_clip or math.inf)
            sums[1] += float(bool(signals or failure))
            # The one wait for the device before the update: without it a bad gradient would be in
            # the weights before anybody knew, and ranks could not agree to stop at the same step.
            loss_sum, asked, grad_norm = torch.cat([process.sum(sums), norm.view(1)]).tolist()
            train_loss = loss_sum / process.world_size
            finite = math.isfinite(train_loss) and math.isfinite(grad_norm)
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * schedule(step)
            optimizer_began = time.perf_counter()
            if finite:
                optimizer.step()
                process.synchronize()
            optimizer_seconds = time.perf_counter() - optimizer_began
            optimizer.zero_grad(set_to_none=True)
            step_seconds = time.perf_counter() - began
            # The clock stops.

            progress.train_seconds += step_seconds
            lr = optimizer.param_groups[0]["lr"]
            if process.rank == 0:
                speed = settings.batch_tokens / step_seconds
                flops = speed * model.flops_per_token() / process.world_size
                values = {
                    "train/loss": train_loss,
                    "train/grad_norm": grad_norm,
                    "train/lr": lr,
                    **(stream.update(train_loss, grad_norm) if finite else {}),
                    "time/train_seconds": progress.train_seconds,
                    "time/step_ms": 1e3 * step_seconds,
                    "time/optimizer_ms": 1e3 * optimizer_seconds,
                    "time/data_wait_ms": 1e3 * batches.wait_seconds,
                    "tokens": (step + 1) * settings.batch_tokens,
                    "tokens_per_second": speed,
                    "mfu": flops / peak if peak else None,
                    "memory/peak_gib": peak_memory_gib(process.device),
                    **{f"optimizer/{name}": x for name, x in optimizer.diagnostics().items()},
                }
                record(step, values)
                screen.stepped(step, values)
            if not finite:
                status = "diverged"
                screen.say(f"diverged: loss {train_loss}, gradient norm {grad_norm} at step {step} "
                           f"with {arm}, lr {lr:.3g}; this update was not applied")  # fmt: skip
                break
            progress.step += 1
            if asked:
                save()
                status = "stopped"
                sender = signals[0] if signals else "a signal to another process"
                screen.say(f"stopped by {sender} at step {progress.step}, with a checkpoint; the "
                           "same command goes on from here")  # fmt: skip
                break

        # ---- the summary
        screen.close()
        if process.rank == 0:
            state_bytes = optim.optimizer_state_bytes(optimizer) / model.num_parameters()
            summary = summarize(runlog.read_metrics(directory), settings.total_steps) | {
                "run": config.run_name,
                "parameters": model.num_parameters(),
                "optimizer_state_bytes_per_parameter": state_bytes,
                "mean_lr_factor": schedule.mean_factor,
                "last_lr_factor": schedule.last_factor,
            }
            try:
                log.finish(status, summary)
            except OSError as error:
                raise RunError(f"cannot write the end of the record in {directory}: {error}; make "
                               "room, then give the same command again") from None  # fmt: skip
            if status == "finished":
                print(closing(summary, directory))
    return status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
