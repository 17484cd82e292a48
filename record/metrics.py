"""The numbers that describe one run: in a stream while it trains, and as a summary afterwards.

L_t is the training loss at update t, the mean over the whole global batch, t = 0..T-1, in nats
per token. Definitions, each with its source:

    stability_score  1 / (1 + std(L_0..L_t)), population std over all updates so far. A 2024 study
                     of ten schedules on GPT-2 introduced it; it punishes learning (a flat run
                     scores 1), so it never ranks alone.
    spike_score      percentage of updates whose loss, or gradient norm, is an outlier of the values
                     before it. OLMo 2 (arXiv:2501.00656): at least 7 sigma from the mean of the
                     preceding 1000. Runs below 2000 updates: OLMo-core's StabilityMonitorCallback,
                     more than 6 sigma above the mean of the preceding 128.
    loss_noise       std of the loss around its own trend.
    converged_step   first t >= 1 with |L_t - L_{t-1}| / L_{t-1} < 1e-3 (same 2024 study). Legacy.
    diverged         non-finite values, a loss that climbs and stays up, or no learning at all.

Non-finite values are divergence, not noise: they set `diverged` and count in `nonfinite_updates`,
and enter no mean, std or window.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

SHORT_RUN = 2000  # updates; shorter runs cannot fill OLMo 2's window often enough
MIN_SIGMA = 1e-10  # below this a window is constant, and any rounding would be an outlier
MEDIAN_WIDTH = 101  # updates; running median of loss_noise
EMA_DECAY = 0.99
EMA_RISE = 0.5  # nats above the EMA's running minimum that count as climbing
NEVER_LEARNED = 0.1  # nats; a final val loss within this of the initial one

Record = dict[str, Any]


class SpikeRule(NamedTuple):
    """When a value is a spike: `sigmas` from the mean of the `window` values before it."""

    window: int
    sigmas: float
    both_sides: bool

    def spike(self, value: float, mean: float, sigma: float) -> bool:
        """OLMo 2: |x - mean| >= k sigma. OLMo-core: x > mean + k sigma."""
        if sigma <= MIN_SIGMA:
            return False
        if self.both_sides:
            return abs(value - mean) >= self.sigmas * sigma
        return value > mean + self.sigmas * sigma


def spike_rule(total_steps: int) -> SpikeRule:
    """The rule for a run of `total_steps` updates."""
    return SpikeRule(128, 6.0, False) if total_steps < SHORT_RUN else SpikeRule(1000, 7.0, True)


class Window:
    """The last values of one series, in a ring; it judges a new value before taking it in.

    Every update computes mean and deviation from the values themselves, in two passes over at most
    8 kB. Running sums would be faster, but drift when a spike passes through them.
    """

    def __init__(self, rule: SpikeRule) -> None:
        self.rule = rule
        self.values = np.zeros(rule.window)
        self.scratch = np.empty(rule.window)
        self.count = 0  # values ever taken in

    def update(self, value: float) -> bool | None:
        """Whether `value` is a spike; None while the window is not full or it is not finite."""
        if not math.isfinite(value):
            return None
        verdict = self.judge(value) if self.count >= self.rule.window else None
        self.values[self.count % self.rule.window] = value
        self.count += 1
        return verdict

    def judge(self, value: float) -> bool:
        """Compare `value` with a full window."""
        n = self.rule.window
        mean = float(np.add.reduce(self.values)) / n
        np.subtract(self.values, mean, out=self.scratch)
        np.multiply(self.scratch, self.scratch, out=self.scratch)
        sigma = math.sqrt(float(np.add.reduce(self.scratch)) / n)
        return self.rule.spike(value, mean, sigma)

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers; the ring as it lies, so that sums are taken in the same order."""
        return {"values": self.values.tolist(), "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from state_dict()'s value.

        Raises:
            ValueError: the state is of a run under another rule.
        """
        if len(state["values"]) != self.rule.window:
            raise ValueError(
                f"metric state has a window of {len(state['values'])} values, this run's rule "
                f"needs {self.rule.window}; resume with the total_steps that the run began with"
            )
        self.values[:] = state["values"]
        self.count = int(state["count"])


class StreamMetrics:
    """Stability and spikes of a run so far; rank 0 calls `update` once per update.

    total_steps: updates of the whole run (it selects the spike rule).
    """

    def __init__(self, total_steps: int) -> None:
        self.loss_window = Window(spike_rule(total_steps))
        self.norm_window = Window(spike_rule(total_steps))
        self.count, self.mean, self.squares = 0, 0.0, 0.0  # Welford over the finite losses
        self.spikes, self.evaluated = 0, 0

    def update(self, loss: float, grad_norm: float) -> dict[str, float]:
        """Take in one update; return the scores over all updates so far.

        loss: nats per token. grad_norm: L2, before clipping.
        Returns `train/stability_score` in (0, 1] and `train/spike_score` in percent.
        """
        if math.isfinite(loss):
            self.count += 1
            delta = loss - self.mean
            self.mean += delta / self.count
            self.squares += delta * (loss - self.mean)
        verdicts = self.loss_window.update(loss), self.norm_window.update(grad_norm)
        if verdicts != (None, None):
            self.evaluated += 1
            self.spikes += any(verdicts)
        return {
            "train/stability_score": self.stability_score,
            "train/spike_score": self.spike_score,
        }

    @property
    def stability_score(self) -> float:
        """1 / (1 + population std of the losses so far); 1.0 before the first."""
        return 1.0 / (1.0 + math.sqrt(self.squares / self.count)) if self.count else 1.0

    @property
    def spike_score(self) -> float:
        """Percent of the updates judged so far; 0.0 before a window was full."""
        return 100.0 * self.spikes / self.evaluated if self.evaluated else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers and lists; after load_state_dict all later values are the same floats."""
        scalars = ("count", "mean", "squares", "spikes", "evaluated")
        windows = {"loss": self.loss_window.state_dict(), "norm": self.norm_window.state_dict()}
        return {name: getattr(self, name) for name in scalars} | windows

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from state_dict()'s value."""
        self.loss_window.load_state_dict(state["loss"])
        self.norm_window.load_state_dict(state["norm"])
        self.count, self.mean, self.squares = state["count"], state["mean"], state["squares"]
        self.spikes, self.evaluated = state["spikes"], state["evaluated"]


def summarize(
    records: Iterable[Record], total_steps: int, *, warmup_steps: int | None = None
) -> dict[str, Any]:
    """The numbers of one run, from the lines of its metrics.jsonl.

    total_steps: updates that the run was configured for.
    warmup_steps: updates left out of loss_noise and of the climbing rule; None takes the updates
    before the learning rate first reaches its maximum, which is the warmup of every schedule.

    Returns names as docs/record.md lists them; a number that the records do not hold is None.
    """
    lines = list(records)
    train = [line for line in lines if "train/loss" in line]
    val = [line for line in lines if "val/loss" in line]
    losses, norms = column(train, "train/loss"), column(train, "train/grad_norm")
    scores = StreamMetrics(total_steps)
    for loss, norm in zip(losses.tolist(), norms.tolist(), strict=True):
        scores.update(loss, norm)
    warm = _warmup(train) if warmup_steps is None else sum(r["step"] < warmup_steps for r in train)
    bad = ~(np.isfinite(losses) & np.isfinite(norms))
    result = {
        "steps": train[-1]["step"] + 1 if train else 0,
        **_validation(val, total_steps),
        "final_train_loss": float(losses[-1]) if train else None,
        "avg_loss": mean(losses),
        "avg_grad_norm": mean(norms),
        "stability_score": scores.stability_score if train else None,
        "spike_score": scores.spike_score if train else None,
        "loss_noise": loss_noise(losses[warm:], total_steps),
        "converged_step": _converged_step(train),
        "nonfinite_updates": int(bad.sum()),
        **costs(train),
    }
    high = climb(losses, warm)
    reason = _divergence(bad, high, result, total_steps)
    return result | {
        "climb_updates": high.longest if train else None,
        "diverged": reason is not None,
        "diverged_reason": reason,
    }


def to_target(records: Iterable[Record], target: float) -> dict[str, float]:
    """What the run had spent at its first evaluation with val loss <= target (nats per token).

    Returns `steps_to_target` (updates), `seconds_to_target` (of the training clock) and
    `tokens_to_target`; a run that never got there has math.inf in all three.
    """
    seconds, tokens = 0.0, 0.0
    for line in sorted(records, key=lambda line: (line["step"], "train/loss" in line)):
        if line.get("val/loss", math.nan) <= target:
            return {
                "steps_to_target": line["step"],
                "seconds_to_target": seconds,
                "tokens_to_target": tokens,
            }
        seconds = line.get("time/train_seconds", seconds)
        tokens = line.get("tokens", tokens)
    return dict.fromkeys(("steps_to_target", "seconds_to_target", "tokens_to_target"), math.inf)


def column(records: Sequence[Record], name: str) -> NDArray[np.float64]:
    """One float per record; a value that is missing or null is NaN."""
    values = (record.get(name) for record in records)
    return np.array([math.nan if v is None else v for v in values], dtype=np.float64)


def mean(values: NDArray[np.float64]) -> float | None:
    """Mean of the finite values; None without any."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else None


def quantile(records: Sequence[Record], name: str, q: float) -> float | None:
    """Quantile q (linear interpolation) of the finite values of one column; None without any."""
    values = column(records, name)
    finite = values[np.isfinite(values)]
    return float(np.quantile(finite, q)) if len(finite) else None


def _validation(val: Sequence[Record], total_steps: int) -> dict[str, Any]:
    """First, best and last val loss; initial is before update 0, final after the last update.

    The test loss is measured with the final val loss, where the data have a test split.
    """
    tested = {line["step"]: line.get("test/loss") for line in val}
    at = {line["step"]: float(line["val/loss"]) for line in val}
    finite = {step: loss for step, loss in at.items() if math.isfinite(loss)}
    best = min(finite, key=lambda step: (finite[step], step)) if finite else None
    return {
        "initial_val_loss": at.get(0),
        "final_val_loss": at.get(total_steps),
        "final_test_loss": tested.get(total_steps),
        "best_val_loss": None if best is None else finite[best],
        "best_val_step": best,
        **_averages([line for line in val if line["step"] == total_steps]),
        **_answers([line for line in val if line["step"] == total_steps]),
    }


def _averages(last: Sequence[Record]) -> dict[str, float]:
    """Final losses of averaged weights: final_val_loss_ema from val/loss_ema, and so on."""
    found = {}
    for key, value in last[-1].items() if last else ():
        split, _, average = key.partition("/loss_")
        if average and split in ("val", "test") and value is not None:
            found[f"final_{split}_loss_{average}"] = float(value)
    return found


def _answers(last: Sequence[Record]) -> dict[str, Any]:
    """The final numbers of HellaSwag: final_hellaswag_acc_norm from hellaswag/acc_norm, ..."""
    found = last[-1].items() if last else ()
    return {f"final_{k.replace('/', '_')}": v for k, v in found if k.startswith("hellaswag/")}


def costs(train: Sequence[Record]) -> dict[str, Any]:
    """Time, throughput and memory; seconds, milliseconds, tokens per second, GiB."""
    seconds = quantile(train, "time/train_seconds", 1.0)
    tokens = quantile(train, "tokens", 1.0)
    return {
        "train_seconds": seconds,
        "step_ms_median": quantile(train, "time/step_ms", 0.5),
        "step_ms_p99": quantile(train, "time/step_ms", 0.99),
        "optimizer_ms_median": quantile(train, "time/optimizer_ms", 0.5),
        "data_wait_ms_median": quantile(train, "time/data_wait_ms", 0.5),
        "tokens": None if tokens is None else int(tokens),
        "tokens_per_second": tokens / seconds if tokens and seconds else None,
        "mfu": _average_mfu(train),
        "peak_memory_gib": quantile(train, "memory/peak_gib", 1.0),
    }


def _average_mfu(train: Sequence[Record]) -> float | None:
    """Mean of `mfu` weighted by the time of each update: FLOPs done over FLOPs possible."""
    mfu, ms = column(train, "mfu"), column(train, "time/step_ms")
    both = np.isfinite(mfu) & np.isfinite(ms) & (ms > 0)
    return float(np.average(mfu[both], weights=ms[both])) if both.any() else None


def _warmup(train: Sequence[Record]) -> int:
    """How many records lie before the learning rate first reaches its maximum."""
    rates = column(train, "train/lr")
    return int(np.nanargmax(rates)) if np.isfinite(rates).any() else 0


def loss_noise(losses: NDArray[np.float64], total_steps: int) -> float | None:
    """Population std of the loss around its trend, in nats; `losses` without the warmup.

    Runs of 2000 updates and more: residuals from the running median of width 101, where that
    window is whole. Shorter: std(L_t - L_{t-1}) / sqrt(2), which is the same for white noise and
    needs no window, since a steep curve leans out of its own median.
    """
    finite = losses[np.isfinite(losses)]
    if total_steps >= SHORT_RUN and len(finite) > MEDIAN_WIDTH:
        half = MEDIAN_WIDTH // 2
        return float(np.std(finite[half:-half] - _running_median(finite)))
    if len(finite) < 2:
        return None
    return float(np.std(np.diff(finite)) / math.sqrt(2))


def _running_median(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Medians of all whole windows of width 101; shape (n - 100,)."""
    windows = np.lib.stride_tricks.sliding_window_view(values, MEDIAN_WIDTH)
    # np.median copies what it is given: 8192 windows are 7 MB, all of a long run are gigabytes
    parts = [np.median(windows[i : i + 8192], axis=1) for i in range(0, len(windows), 8192)]
    return np.concatenate(parts)


def _converged_step(train: Sequence[Record]) -> int | None:
    """The `step` of the first record whose loss is within 0.1 % of the one before it."""
    losses = column(train, "train/loss")
    with np.errstate(invalid="ignore", divide="ignore"):
        close = np.abs(np.diff(losses)) / losses[:-1] < 1e-3
    return int(train[int(np.argmax(close)) + 1]["step"]) if close.any() else None


class Climb(NamedTuple):
    """How the EMA_0.99 of the loss stood above its minimum by more than 0.5 nats, after warmup."""

    longest: int  # updates in a row
    last: int  # of them up to the last update; 0 if the average is down again
    lowest: float  # minimum of the average, nats

    def stays(self, total_steps: int, final: float | None) -> bool:
        """Whether it still was up at the end of the run; final: val loss in nats, if there is one.

        The average lags behind, so a final val loss that is back down counts as a recovery.
        """
        up = final is None or final > self.lowest + EMA_RISE
        return self.last >= climb_limit(total_steps) and up


def _divergence(
    bad: NDArray[np.bool_], high: Climb, summary: dict[str, Any], total_steps: int
) -> str | None:
    """Why the run counts as diverged: "non-finite", "loss climbed", "never learned", or None."""
    initial, final = summary["initial_val_loss"], summary["final_val_loss"]
    if bad.any() or (final is not None and not math.isfinite(final)):
        return "non-finite"
    if high.stays(total_steps, final):
        return "loss climbed"
    if final is not None and initial is not None and final >= initial - NEVER_LEARNED:
        return "never learned"
    return None


def climb_limit(total_steps: int) -> int:
    """Updates in a row from which on a loss that stands above its minimum has climbed."""
    return max(100, math.ceil(0.01 * total_steps))


def climb(losses: NDArray[np.float64], warm: int) -> Climb:
    """The climb of a run's losses. The average starts at L_0, and so does its minimum."""
    ema, lowest, above, longest = math.nan, math.inf, 0, 0
    for t, loss in enumerate(losses.tolist()):
        ema = loss if t == 0 else EMA_DECAY * ema + (1.0 - EMA_DECAY) * loss
        lowest = min(lowest, ema)
        above = above + 1 if t >= warm and ema > lowest + EMA_RISE else 0
        longest = max(longest, above)
    return Climb(longest, above, lowest)


def is_outdated(summary: Mapping[str, Any]) -> bool:
    """Whether its "loss climbed" is that of earlier versions, also for a run that came back."""
    return summary.get("diverged_reason") == "loss climbed" and "climb_updates" not in summary
