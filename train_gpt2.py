"""Train GPT-2 with any optimizer and any learning-rate schedule, by name. Read from the top.

    torchrun --nproc_per_node=8 train_gpt2.py                     # GPT-2 124M on FineWeb
    torchrun --nproc_per_node=8 train_gpt2.py configs/gpt2_124m.toml configs/schedule/wsd.toml \
        --optimizer.lr 3e-4 --seed 2
    python train_gpt2.py configs/quickstart.toml                  # one process, CPU or GPU

Kill it at any moment: the same command resumes from the last whole checkpoint, to the same bits.
Exit codes: 0 finished or stopped, 2 user error, 3 diverged, 1 a rank was lost (docs/launch.md).
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.profiler import record_function
from torch.utils.checkpoint import checkpoint as recomputed

import optim.by_role
from configs import Batch, Config, ConfigError, Model, load, origins, size, usage
from data import DataError, HeldOut, Loader, data_hashes, held_out, listed, open_splits
from data.hellaswag import HellaSwag
from launch import attention, memory, session
from launch.calls import called
from launch.process import Process, Requests, print_once, run_main
from launch.updates import Updates
from record import checkpoints, parents, runlog, screen
from record.metrics import StreamMetrics
from record.profile import Profile

# ------------------------------------------------------------------------------------ the model


class Attention(nn.Module):
    """Causal multi-head self-attention; c_attn holds Q, K, V as rows 0:C, C:2C, 2C:3C."""

    def __init__(self, shape: Model) -> None:
        super().__init__()
        self.n_head, self.scale = shape.n_head, shape.attention_scale
        self.c_attn = nn.Linear(shape.n_embd, 3 * shape.n_embd)
        self.c_proj = nn.Linear(shape.n_embd, shape.n_embd)
        self.largest_logits: Tensor | None = None  # (heads,), while an optimizer watches them

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        b, t, c = x.shape
        q, k, v = self.c_attn(x).view(b, t, 3, self.n_head, -1).permute(2, 0, 3, 1, 4)
        optim.note_logits(self.largest_logits, q, k, self.scale)  # (B, heads, T, C / heads) each
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=self.scale)
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

    The embedding is padded to a multiple of 64 rows, which tensor cores prefer. These 47 rows have
    no input and no logit, so they stay zero; a mean over all 50,304 rows is 0.1 % smaller.
    """

    def __init__(self, shape: Model) -> None:
        super().__init__()
        self.shape, self.readout = shape, shape.readout  # a factor of muP
        rows = math.ceil(shape.vocab_size / size.UNIT) * size.UNIT
        self.wte = nn.Embedding(rows, shape.n_embd)
        self.wpe = nn.Embedding(shape.block_size, shape.n_embd)
        self.h = nn.ModuleList(Block(shape) for _ in range(shape.n_layer))
        self.ln_f = nn.LayerNorm(shape.n_embd)
        self.recomputes = False  # whether blocks run again in the backward pass, to save memory

    @classmethod
    def initialised(cls, shape: Model, seed: int) -> GPT:
        """GPT-2's initial weights on the CPU: a function of the shape and the seed alone."""
        with torch.device("meta"):  # skips torch's own initialisation
            model = cls(shape)
        model = model.to_empty(device="cpu")
        generator = torch.Generator().manual_seed(seed)
        for name, p in model.named_parameters():
            if p.ndim < 2:
                nn.init.constant_(p, float(".ln_" in f".{name}" and name.endswith("weight")))
                continue
            rows = p.data[: shape.vocab_size] if name == "wte.weight" else p.data
            nn.init.normal_(rows, std=shape.initial_std(name), generator=generator)
        nn.init.zeros_(model.wte.weight.data[shape.vocab_size :])
        return model

    def logits(self, tokens: Tensor) -> Tensor:
        """(B, T) token ids -> (B, T, vocab_size); compiled, padded columns of -inf follow."""
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.size(1), device=tokens.device))
        for block in self.h:
            x = recomputed(block, x, use_reentrant=False) if self.recomputes else block(x)
        x = self.ln_f(x) if self.readout == 1 else self.readout * self.ln_f(x)
        logits = F.linear(x, self.wte.weight)
        if torch.compiler.is_compiling():  # a mask joins the loss's kernel, a slice is a copy
            padded = torch.arange(len(self.wte.weight), device=x.device) >= self.shape.vocab_size
            return logits.masked_fill(padded, -math.inf)
        return logits[..., : self.shape.vocab_size]

    def forward(self, tokens: Tensor, targets: Tensor, by_sequence: bool = False) -> Tensor:
        """(B, T) token ids and the ids that follow them -> mean cross-entropy, nats per token.

        by_sequence: one mean per sequence, (B,). Floating-point `targets`: uniform, to draw labels.
        """
        logits = self.logits(tokens)
        if targets.is_floating_point():
            cumulative = logits.detach().float().softmax(-1).cumsum(-1)  # ends near 1, not at it
            drawn = torch.searchsorted(cumulative, targets[..., None], right=True)
            targets = drawn.clamp(max=self.shape.vocab_size - 1)
        reduction = "none" if by_sequence else "mean"
        loss = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction=reduction)
        return loss.view_as(tokens).mean(1) if by_sequence else loss

    def parameter_groups(self) -> list[dict[str, Any]]:
        """By role: hidden matrices, embeddings (the head is tied), vectors (no decay)."""
        roles = ("hidden", "embedding", "vector")
        groups: dict[str, Any] = {role: {"role": role, "params": [], "names": []} for role in roles}
        groups["vector"]["weight_decay"] = 0.0
        for name, p in self.named_parameters():
            role = "vector" if p.ndim < 2 else "hidden" if name.startswith("h.") else "embedding"
            groups[role]["params"].append(p)
            groups[role]["names"].append(name)
        return list(groups.values())


# ------------------------------------------------------------------------------------ evaluation


def evaluate(model: nn.Module, text: HeldOut, rows: int, process: Process) -> Tensor:
    """Loss of each sequence, nats per token, (sequences,), on all ranks; `rows` in one pass."""
    model.eval()
    losses = torch.zeros(text.sequences, device=process.device)
    with torch.no_grad():
        for place, batch in text.batches(rows):
            chunk = batch.to(process.device, non_blocking=True)
            losses[place] = model(chunk[:, :-1], chunk[:, 1:], by_sequence=True)
    model.train()
    return process.sum(losses).cpu()


# --------------------------------------------------------------------------------- what a run is


@dataclass(frozen=True)
class Run:
    """What stays the same from the first step to the last."""

    config: Config
    origins: dict[str, str]  # of hyperparameters: dotted key -> file, or "flag"
    process: Process
    batch: Batch
    schedule: optim.Schedule
    loader: Loader
    held_out: dict[str, HeldOut]  # val, and test where the data have it
    quiz: HellaSwag | None
    parent: checkpoints.Checkpoint | None  # whose weights it starts from


@dataclass
class State:
    """What a step changes, and the model as it is called: compiled, and under DDP."""

    model: GPT
    compiled: nn.Module
    ddp_model: nn.Module
    optimizer: optim.Optimizer
    dtype: str  # of matrix products
    autocast: torch.autocast
    metrics: StreamMetrics
    progress: checkpoints.Progress = field(default_factory=checkpoints.Progress)


# ----------------------------------------------------------------------------------- preparation


def prepare(config: Config, origins: dict[str, str]) -> Run:
    """Check all that can be checked before a GPU is touched (ConfigError, DataError)."""
    process, shape, data = Process.from_environment(config.train), config.model, config.data
    batch = Batch.divide(config, process.world_size)
    schedule = optim.schedule_of(config)
    with torch.device("meta"):
        optim.optimizer_of(config, GPT(shape).parameter_groups(), *process.place)  # or refuses
    splits = open_splits(data.dir, vocab_size=shape.vocab_size, format=data.format, scan=False)
    ranks = {"block_size": shape.block_size, "rank": process.rank, "world_size": process.world_size}
    loader = Loader(splits["train"], batch_size=batch.size, data_seed=config.data_seed, **ranks)
    texts = held_out(splits, num_tokens=config.eval.tokens, **ranks)
    quiz = HellaSwag.opened(config.eval.hellaswag, data.dir, shape.vocab_size, **ranks)
    return Run(config, origins, process, batch, schedule, loader, texts, quiz, parents.of(config))


# ---------------------------------------------------------------------------------------- build


def build(run: Run, checkpoint: Path | None) -> State:
    """Model and optimizer on their device: before step 0, or as the checkpoint left them."""
    settings, process, device = run.config.train, run.process, run.process.device
    model = GPT.initialised(run.config.model, run.config.seed).to(device)
    model.recomputes = settings.activation_checkpointing
    parents.put_weights(run.config, run.parent, model, optim.optimizer_of)
    optimizer = optim.optimizer_of(run.config, model.parameter_groups(), *process.place)
    optimizer.check_gradients = False  # the loop checks their norm before every step
    compiled = called(model, settings, device)
    ddp_model = process.distribute(compiled, settings.gradient_dtype)
    dtype, autocast = process.precision(settings.dtype)
    torch.set_float32_matmul_precision(optim.matmul_precision(device.type, dtype == "float32"))
    metrics = StreamMetrics(settings.total_steps)
    state = State(model, compiled, ddp_model, optimizer, dtype, autocast, metrics)
    if checkpoint:
        saved = checkpoints.load(checkpoint, run.config.run_name, mmap=True)
        state.progress = checkpoints.restore(saved, metrics, model, optimizer)
    else:
        parents.put_state(run.config, run.parent, optimizer)
    return state


# --------------------------------------------------------------------------------------- warm-up


def warm_up(run: Run, state: State) -> float:
    """One pass before the clock starts, to compile and to settle DDP's buckets; its seconds."""
    # With settled buckets a resumed run adds gradients in the order of one never interrupted.
    began = time.perf_counter()
    optimizer, shape = state.optimizer, (run.batch.micro, run.config.model.block_size + 1)
    tokens = torch.zeros(shape, dtype=torch.int64).to(run.process.device)
    steps = range(state.progress.step, run.config.train.total_steps)
    with state.autocast:  # the strides are the loop's: others would compile again
        for step in {optimizer.logits_due(step): step for step in steps}.values():
            with optim.watched_logits(optimizer, state.model, step, run.process.max):
                state.ddp_model(tokens[:, :-1], tokens[:, 1:]).backward()
        if any(map(optimizer.curvature_due, steps)):
            state.ddp_model(tokens[:, :-1], tokens[:, 1:].float()).backward()
    state.model.zero_grad(set_to_none=True)
    optimizer.warm_up()
    run.process.synchronize()
    return time.perf_counter() - began


def begin(run: Run, state: State, log: runlog.Log) -> None:
    """Print and record on rank 0 what this launch runs on; warm up (RunError: other weights)."""
    config, process, step = run.config, run.process, state.progress.step
    tokens = {split: text.num_tokens for split, text in run.held_out.items()}
    facts = {"start_step": step, "optimizer_ranks": state.optimizer.ranks, "eval_tokens": tokens}
    facts |= {"profiled_updates": config.log.profile, "micro_batch_size": run.batch.micro}
    facts["attention"] = attention.taken(config.model, state.dtype, process.device)
    hashes = {"weights": checkpoints.weights_hash(state.model)} if step == process.rank == 0 else {}
    if process.rank == 0:
        n, epochs = size.parameters(config.model), run.loader.epoch(config.train.total_steps)
        model = f"{n:,} parameters, {state.dtype}, {facts['attention']}, on {process.device_name}"
        lines = model + process.hint(config.train.dtype), str(run.batch), epochs, tokens
        print(screen.opening(config, run.origins, step, *lines), flush=True)
        if conflict := optim.schedule_conflict(state.optimizer, run.schedule):
            print(f"warning: {conflict}", flush=True)
    facts["warm_up_seconds"] = warm_up(run, state)
    session.record_launch(process, config, log, hashes, facts)


# -------------------------------------------------------------------------------------- the loop


def backward(run: Run, state: State, rows: Tensor, uniform: Tensor | None = None) -> Tensor:
    """Gradients of the mean loss over all ranks; returns this rank's loss.

    rows: this rank's sequences, (rows, block_size + 1). uniform: (rows, block_size), draws labels.
    """
    device, micro, model = run.process.device, run.batch.micro, state.ddp_model
    total = torch.zeros((), device=device)
    for i, chunk in enumerate(rows.split(micro)):
        if run.process.world_size > 1:  # ranks exchange gradients on the last micro-batch only
            model.require_backward_grad_sync = i == run.batch.micro_batches - 1  # type: ignore
        chunk = chunk.to(device, non_blocking=True)
        targets = chunk[:, 1:] if uniform is None else uniform[i * micro :][:micro]
        with record_function("forward"), state.autocast:
            loss = model(chunk[:, :-1], targets) / run.batch.micro_batches
        with record_function("backward"):
            loss.backward()
        total += loss.detach()
    return total


@record_function("evaluation")
def measure(run: Run, state: State, log: runlog.Log, step: int) -> dict[str, float]:
    """Numbers by name, val/loss among them; after the last update also the test loss."""
    session.require_equal_replicas(run.process, run.config, state.model, step)
    began, last = time.perf_counter(), step == run.config.train.total_steps
    texts = run.held_out if last else {"val": run.held_out["val"]}
    rows, process, losses = run.batch.micro, run.process, {}
    for weights in state.optimizer.evaluations():  # "", the judged ones; then averages: "_<name>"
        with state.autocast:
            for split, text in texts.items():
                losses[split + weights] = evaluate(state.compiled, text, rows, process)
            if run.quiz:
                losses["hellaswag" + weights] = process.sum(run.quiz.right(state.model))
    state.progress.evaluated, seconds = step, time.perf_counter() - began
    return session.record_losses(process, run.config, log, step, losses, seconds)


def loop(run: Run, state: State, log: runlog.Log, signals: Requests) -> runlog.Status:
    """The loop, in seven steps. `signals` grows when the run is asked to stop."""
    config, process, settings = run.config, run.process, run.config.train
    model, optimizer, progress = state.model, state.optimizer, state.progress
    prints, start_step, parameters = process.rank == 0, progress.step, list(model.parameters())
    arm = f"{config.optimizer.name} and {config.schedule.name}"
    inside = optim.Inside(config.diagnose.every, optimizer, run.batch, process)
    bar = screen.Screen(settings.total_steps, start_step, config.log.print_every, prints)
    updates = Updates(process, config, log, bar, progress, state.dtype)
    profile = Profile(config.directory, config.log.profile if prints else 0, bar.say)
    prefetched = run.loader.batches(start_step, pin_memory=process.device.type == "cuda")
    with bar, profile, prefetched as batches:
        for step in range(start_step, settings.total_steps + 1):
            last = step == settings.total_steps
            # ---- 1. evaluate
            if (last or step % config.eval.every == 0) and progress.evaluated != step:
                updates.report()
                measured = measure(run, state, log, step)
                bar.evaluated(step, measured)
                if not math.isfinite(val_loss := measured["val/loss"]):
                    bar.say(f"diverged: val loss {val_loss} after {step} updates with {arm}")
                    return "diverged"

            # ---- 2. checkpoint
            due = config.checkpoint.every and step % config.checkpoint.every == 0
            if last or (due and step > start_step):
                updates.report()
                session.save_checkpoint(process, config, log, state, wait=last)
            if last:
                break

            # ---- 3. gradients. The clock is training time: it runs from here to the update's end.
            updates.start()
            signals.at_once = False  # from now on a stop saves
            # A function of the step (on a GPU also of the seed), equal on all ranks: no state.
            torch.manual_seed((config.seed << 32) + step)
            with record_function("data"):
                rows = next(batches)
            if optimizer.curvature_due(step):  # a row draws the same labels on any rank
                uniform = torch.rand(run.batch.size, config.model.block_size)
                uniform = uniform[process.rank * run.batch.rows :][: run.batch.rows]
                backward(run, state, rows, uniform.to(process.device))
                optimizer.update_curvature(settings.batch_tokens)
                optimizer.zero_grad(set_to_none=True)
            with optim.watched_logits(optimizer, model, step, process.max), inside.gradients(step):
                loss = backward(run, state, rows)

            # ---- 4. clip
            norm = nn.utils.clip_grad_norm_(parameters, settings.grad_clip or math.inf)
            sums = torch.stack([loss, torch.full_like(loss, bool(signals or log.failure))])
            # The one wait for the device before the update: without it a bad gradient would reach
            # the weights unseen, and ranks could not agree to stop at the same step.
            loss_sum, stop, grad_norm = torch.cat([process.sum(sums), norm.view(1)]).tolist()
            updates.report()  # of the update before, whose end the device has passed
            train_loss = loss_sum / process.world_size
            finite = math.isfinite(train_loss) and math.isfinite(grad_norm)

            # ---- 5. learning rate
            for group in optimizer.param_groups:
                group["lr"] = group["initial_lr"] * run.schedule(step, group["role"])

            # ---- 6. update
            with inside.update(grad_norm, applied=finite), updates.optimizing():
                if finite:
                    optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            updates.mark()

            # ---- 7. log. The clock has stopped.
            lr = optimizer.param_groups[0]["lr"]
            values = {
                "train/loss": train_loss,
                "train/grad_norm": grad_norm,
                "train/lr": lr,
                **(state.metrics.update(train_loss, grad_norm) if finite else {}),
                "time/data_wait_ms": 1e3 * batches.wait_seconds,
                **optim.curves(optimizer, run.schedule),  # of what all ranks keep
            }
            updates.log_later(step, values, inside.found, now=bool(stop) or not finite)
            if not finite:
                what = f"loss {train_loss}, gradient norm {grad_norm} at step {step}"
                bar.say(f"diverged: {what} with {arm}, lr {lr:.3g}; this update was not applied")
                return "diverged"
            progress.step = step + 1
            profile.step()
            if stop:
                session.save_checkpoint(process, config, log, state, wait=True)
                who = signals[0] if signals else "a signal to another process"
                bar.say(f"stopped by {who} at step {step + 1}; the same command resumes there")
                return "stopped"
    return "finished"


# --------------------------------------------------------------------------------------- the end


def finish(run: Run, state: State, log: runlog.Log, status: runlog.Status) -> None:
    """Rank 0 writes the summary and prints the closing lines; RunError where it cannot."""
    n, optimizer = size.parameters(run.config.model), state.optimizer
    by_rank = run.process.each(optim.optimizer_state_bytes(optimizer))
    facts = {"parameters": n, "optimizer_state_bytes": by_rank, **run.schedule.facts()}
    facts["flops_per_token"] = size.flops_per_token(run.config.model)
    facts["optimizer_state_bytes_per_parameter"] = sum(by_rank) * optimizer.ranks / len(by_rank) / n
    session.close_record(run.process, run.config, log, status, facts)


# ------------------------------------------------------------------------------ the command line


def train(run: Run, log: runlog.Log, checkpoint: Path | None, signals: Requests) -> runlog.Status:
    """Build or restore, loop, finish. DDP goes with this frame: before its process group."""
    state = build(run, checkpoint)
    run = replace(run, batch=memory.fitted(run, state, log, optim.by_role.state_to_come, warm_up))
    with memory.explained(run.config, run.batch):
        begin(run, state, log)
        status = loop(run, state, log, signals)
        finish(run, state, log, status)
    return status


def command(argv: list[str]) -> int:
    """What a command line asks for; returns the exit code."""
    if "--help" in argv or "-h" in argv:
        return print_once(usage())
    words = [word for word in argv if word not in ("--print-config", "--print_config")]
    config = parents.resolved(optim.resolve(load(words)))
    if len(words) < len(argv):
        optim.by_role.check(config, Process.ranks_given())
        needs = memory.estimates(config, optim.by_role.state_bytes(config))
        return print_once(f"# folder: {config.directory}\n{needs}{config.toml()}")
    run = prepare(config, origins(words))
    process, tokens = run.process, (run.loader, run.held_out, run.quiz)
    with process.joined(config, listed(run.loader, run.held_out)) as signals:
        hashes = session.agreed_hashes(process, lambda scan: data_hashes(*tokens, scan), DataError)
        if (ended := session.already_ended(process, config, hashes)) is not None:
            return ended
        log, checkpoint = session.open_record(process, config, run.origins, hashes)
        with log, process.naming_lost_peers(), memory.explained(config):
            status = train(run, log, checkpoint, signals)
    return runlog.EXIT_CODES[status]


def main(argv: list[str]) -> int:
    """Run one command line; returns the exit code, after one line for a user error."""
    return run_main(lambda: command(argv), (ConfigError, DataError, runlog.RecordError))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
