"""Learning-rate schedules: pure functions `(step, total_steps, hyperparameters) -> factor`.

The factor, in [0, 1], multiplies every parameter group's own base learning rate. Conventions:

- `step` counts updates from 0; `total_steps` (T) is their number. There is no state: the factor
  after a resume is the factor without one.
- Warm-up gives (step + 1) / warmup, so that the first update is not wasted at 0 and the peak, 1,
  is reached at its last step, warmup - 1. A warm-up longer than the run is an error.
- A decay reaches its end at step T, one past the last update. That limit, f(T), is also what
  `build_schedule` returns for every step past the end.
- Steps are an int (that many) or a float in [0, 1): a fraction of the run, which ends at the first
  step at or after it, as in transformers' `warmup_steps`. 1 is one step; 1.0 is refused.
- The floor, `min_lr_ratio`, is a ratio of the peak, so that an lr sweep keeps the shape.
- Defaults are fractions of the run, so that a shorter run has the same shape. That of the warm-up
  is the same for every schedule that has one.

The annotations validate each hyperparameter before a function is called. A check that needs two of
them, or T, is inside the function.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from operator import itemgetter
from typing import Annotated, Literal

from pydantic import AfterValidator

from configs.validation import ConfigError
from optim.core.hyperparameters import (
    ROUNDING,
    AtLeastOne,
    Count,
    OpenRatio,
    Positive,
    PositiveRatio,
    PositiveSteps,
    Ratio,
    Steps,
    placed,
)

WARMUP = 0.03748  # of the run: 715 of 19,073 updates, as in build-nanogpt's GPT-2 124M
DecayType = Literal[
    "linear", "1-sqrt", "cosine", "mirror_cosine", "square", "exponential", "power", "1-power"
]


def _increasing(milestones: tuple[int | float, ...]) -> tuple[int | float, ...]:
    for earlier, later in itertools.pairwise(milestones):
        if isinstance(earlier, int) == isinstance(later, int) and earlier >= later:
            raise ValueError(f"should increase, but {later} follows {earlier}")
    return milestones


def _knots(knots: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    if not knots:
        raise ValueError("should have at least one [fraction, factor] pair")
    _increasing(tuple(place for place, _ in knots))
    return knots


Milestones = Annotated[tuple[PositiveSteps, ...], AfterValidator(_increasing)]
Knots = Annotated[tuple[tuple[Ratio, Ratio], ...], AfterValidator(_knots)]


# ---------------------------------------------------------------- the pieces


def _warmup_end(warmup_steps: int | float, total_steps: int) -> int:
    """Length of the warm-up in updates.

    Raises:
        ConfigError: it is longer than the run.
    """
    end = placed(warmup_steps, total_steps)
    if end > total_steps:
        raise ConfigError(
            f"schedule.warmup_steps = {warmup_steps} is longer than the run of {total_steps} steps;"
            " make it shorter, or give a fraction of the run such as 0.02"
        )
    return end


def _tail_start(key: str, steps: int | float, warmup: int, total_steps: int) -> int:
    """First step of the last `steps` of the run.

    Raises:
        ConfigError: the warm-up reaches into them.
    """
    # Place the complement of a fraction, so that 0.3 and 0.7 of a run always fit together.
    start = total_steps - steps if isinstance(steps, int) else placed(1 - steps, total_steps)
    if start < warmup:
        raise ConfigError(
            f"schedule.{key} = {steps} leaves {max(start, 0)} of {total_steps} steps, fewer than"
            f" the warm-up's {warmup}; make schedule.{key} or schedule.warmup_steps shorter"
        )
    return int(start)


def _ramp(step: int, warmup: int) -> float:
    """(step + 1) / warmup during the warm-up, then 1."""
    return min(1.0, (step + 1) / warmup) if warmup else 1.0


def _progress(step: float, start: float, end: float) -> float:
    """0 until `start`, 1 from `end`, linear between them."""
    if step >= end:
        return 1.0
    return (step - start) / (end - start) if step > start else 0.0


def _mix(floor: float, shape: float) -> float:
    """Scale `shape`, which falls from 1 to 0, so that it falls from 1 to `floor`."""
    return floor + (1 - floor) * shape


def _half_cosine(x: float) -> float:
    """1 at x = 0, 0 at x = 1, level at both ends."""
    return (1 + math.cos(math.pi * x)) / 2


# ---------------------------------------------------------------- the schedules


def constant(step: int, total_steps: int, *, warmup_steps: Steps = WARMUP) -> float:
    """1 throughout, after the warm-up.

    Source: the control. It is also what schedule-free methods (Defazio et al., "The Road Less
    Scheduled", arXiv:2405.15682) run with, after a warm-up.
    """
    return _ramp(step, _warmup_end(warmup_steps, total_steps))


def step(
    step: int,
    total_steps: int,
    *,
    warmup_steps: Steps = WARMUP,
    step_size: PositiveSteps = 0.1,
    gamma: PositiveRatio = 0.1 ** (1 / 9),
) -> float:
    """Staircase: gamma ** floor((t - W) / S).

    A fractional `step_size` is a fraction of the steps after the warm-up, rounded up. The default
    gives at most ten plateaus; with its gamma the tenth is 0.1.

    Source: torch.optim.lr_scheduler.StepLR.
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    after = min(step, total_steps - 1) - warmup
    plateau = max(1, placed(step_size, total_steps - warmup))
    if isinstance(step_size, int) and warmup + step_size >= total_steps:
        raise ConfigError(
            f"schedule.step_size = {step_size} is not shorter than the {total_steps - warmup} steps"
            " after the warm-up, so it never acts; make it shorter, or name schedule 'constant'"
        )
    return _ramp(step, warmup) * gamma ** max(0, after // plateau)


def multistep(
    step: int,
    total_steps: int,
    *,
    warmup_steps: Steps = WARMUP,
    milestones: Milestones = (0.3, 0.6, 0.9),
    gamma: PositiveRatio = 0.1 ** (1 / 3),
) -> float:
    """gamma ** (number of milestones passed); milestones count from the start of the run.

    The default ends at 0.1. DeepSeek LLM (arXiv:2401.02954) uses milestones (0.8, 0.9) and gamma
    0.1 ** (1/2) = 0.316.

    Source: torch.optim.lr_scheduler.MultiStepLR.
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    t = min(step, total_steps - 1)
    passed = sum(placed(milestone, total_steps) <= t for milestone in milestones)
    outside = [m for m in milestones if isinstance(m, int) and m >= total_steps]
    if outside or (passed and t < warmup):
        raise ConfigError(
            f"schedule.milestones = {list(milestones)}: each should lie between the end of the"
            f" warm-up, {warmup}, and the end of the run, {total_steps} steps"
        )
    return _ramp(step, warmup) * gamma**passed


def linear(
    step: int, total_steps: int, *, warmup_steps: Steps = WARMUP, min_lr_ratio: Ratio = 0.0
) -> float:
    """r + (1 - r)(1 - x), with x the progress from the end of the warm-up to the end of the run.

    Source: torch.optim.lr_scheduler.LinearLR; transformers' "linear". To zero, the default:
    Defazio et al., arXiv:2310.07831; Bergsma et al., arXiv:2502.15938.
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    return _ramp(step, warmup) * _mix(min_lr_ratio, 1 - _progress(step, warmup, total_steps))


def linear_to_zero(step: int, total_steps: int, *, warmup_steps: Steps = WARMUP) -> float:
    """1 - x: `linear` with a floor of 0, under the name that the literature gives it (D2Z).

    Source: Bergsma et al., "Straight to Zero", arXiv:2502.15938.
    """
    return linear(step, total_steps, warmup_steps=warmup_steps, min_lr_ratio=0.0)


def exponential(
    step: int, total_steps: int, *, warmup_steps: Steps = WARMUP, min_lr_ratio: PositiveRatio = 0.1
) -> float:
    """r ** x: the ratio of two successive factors is constant, whatever the length of the run.

    Source: torch.optim.lr_scheduler.ExponentialLR, with its gamma = r ** (1 / (T - W)).
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    return _ramp(step, warmup) * min_lr_ratio ** _progress(step, warmup, total_steps)


def cosine(
    step: int, total_steps: int, *, warmup_steps: Steps = WARMUP, min_lr_ratio: Ratio = 0.1
) -> float:
    """r + (1 - r)(1 + cos(pi x)) / 2: one half wave.

    Source: Loshchilov & Hutter, arXiv:1608.03983, equation 5, without restarts; the GPT-3 recipe.
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    x = _progress(step, warmup, total_steps)
    return _ramp(step, warmup) * _mix(min_lr_ratio, _half_cosine(x))


def polynomial(
    step: int,
    total_steps: int,
    *,
    warmup_steps: Steps = WARMUP,
    power: Positive = 2.0,
    min_lr_ratio: Ratio = 0.1,
) -> float:
    """r + (1 - r)(1 - x) ** power: convex (falls early) for power > 1, concave below.

    Source: torch.optim.lr_scheduler.PolynomialLR; transformers' "polynomial".
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    x = _progress(step, warmup, total_steps)
    return _ramp(step, warmup) * _mix(min_lr_ratio, (1 - x) ** power)


def rex(
    step: int, total_steps: int, *, warmup_steps: Steps = WARMUP, min_lr_ratio: Ratio = 0.0
) -> float:
    """r + (1 - r)(1 - x) / (1 - x / 2): above linear throughout, steepest at the end.

    Source: Chen, Wolfe & Kyrillidis, "REX", arXiv:2107.04197.
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    x = _progress(step, warmup, total_steps)
    return _ramp(step, warmup) * _mix(min_lr_ratio, (1 - x) / (1 - x / 2))


def one_cycle(
    step: int,
    total_steps: int,
    *,
    pct_start: OpenRatio = 0.3,
    div_factor: AtLeastOne = 25.0,
    final_div_factor: AtLeastOne = 1e4,
    anneal_strategy: Literal["cos", "linear"] = "cos",
) -> float:
    """Up from 1/div over the first part of the run, down to 1/(div * final_div) at its last step.

    Two departures from the conventions, as in torch: the end is reached at the last update, T - 1,
    and the rise is the cycle's own instead of a warm-up. Momentum is not cycled.

    Source: Smith & Topin, arXiv:1708.07120; torch.optim.lr_scheduler.OneCycleLR.
    """
    anneal = _half_cosine if anneal_strategy == "cos" else lambda x: 1 - x
    peak, last = max(0.0, pct_start * total_steps - 1), total_steps - 1
    if step <= peak:
        return _mix(1 / div_factor, 1 - anneal(_progress(step, 0, peak)))
    return _mix(1 / (div_factor * final_div_factor), anneal(_progress(step, peak, last)))


def cosine_warm_restarts(
    step: int,
    total_steps: int,
    *,
    warmup_steps: Steps = WARMUP,
    cycles: Count = 3,
    cycle_mult: AtLeastOne = 2.0,
    first_cycle_steps: PositiveSteps | None = None,
    min_lr_ratio: Ratio = 0.0,
) -> float:
    """Cosine half waves from 1 to r, each `cycle_mult` times as long as the one before.

    Without `first_cycle_steps`, its length is chosen so that `cycles` of them end with the run.
    With it (torch's T_0), the run may end within the last cycle, but not after it.

    Source: Loshchilov & Hutter, "SGDR", arXiv:1608.03983; CosineAnnealingWarmRestarts.
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    start = float(warmup)
    length = _first_cycle(first_cycle_steps, cycles, cycle_mult, warmup, total_steps)
    for _ in range(cycles - 1):
        if step < start + length - ROUNDING:
            break
        start, length = start + length, length * cycle_mult
    x = _progress(step, start, start + length)
    return _ramp(step, warmup) * _mix(min_lr_ratio, _half_cosine(x))


def _first_cycle(
    steps: int | float | None, cycles: int, mult: float, warmup: int, total_steps: int
) -> float:
    lengths = float(cycles) if mult == 1 else (mult**cycles - 1) / (mult - 1)  # in first cycles
    if steps is None:
        return (total_steps - warmup) / lengths
    first = placed(steps, total_steps)
    end = warmup + first * lengths
    last_start = end - first * mult ** (cycles - 1)
    if not last_start < total_steps <= end + ROUNDING:
        raise ConfigError(
            f"schedule.cycles = {cycles} with schedule.first_cycle_steps = {steps}: the last cycle"
            f" lasts from step {last_start:.0f} to {end:.0f} and should contain the end of the run,"
            f" {total_steps}; leave first_cycle_steps away to fill the run"
        )
    return first


def cyclic(
    step: int,
    total_steps: int,
    *,
    cycles: Count = 4,
    mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
    gamma: PositiveRatio = 1.0,
    min_lr_ratio: Ratio = 0.1,
) -> float:
    """Triangle waves between r and 1, in whole cycles, so that the run ends at r.

    "triangular2" halves the height at each cycle; "exp_range" multiplies it by gamma ** t. The
    first rise is the warm-up.

    Source: Smith, "Cyclical Learning Rates", arXiv:1506.01186; torch.optim.lr_scheduler.CyclicLR.
    """
    if (gamma < 1) != (mode == "exp_range"):
        raise ConfigError(
            f"schedule.gamma = {gamma} with schedule.mode = '{mode}'; mode 'exp_range' needs a"
            " gamma below 1 (per step), the other modes need none"
        )
    half = total_steps / (2 * cycles)
    cycle = math.floor(1 + step / (2 * half))
    height = max(0.0, 1 - abs(step / half - 2 * cycle + 1))
    scale = 0.5 ** (cycle - 1) if mode == "triangular2" else gamma**step
    return _mix(min_lr_ratio, height * scale)


def wsd(
    step: int,
    total_steps: int,
    *,
    warmup_steps: Steps = WARMUP,
    decay_steps: PositiveSteps = 0.2,
    decay_type: DecayType = "1-sqrt",
    power: Positive | None = None,
    min_lr_ratio: Ratio = 0.0,
) -> float:
    """Warm up, stay at 1, and decay to r over the last `decay_steps` (trapezoidal).

    With y the progress of the decay, the shapes are, in the order of `DecayType`: 1 - y,
    1 - sqrt(y), (1 + cos(pi y)) / 2, its mirror image about 1 - y, 1 - y ** 2, r ** y,
    (1 - y) ** power and 1 - y ** power. The last two need a `power`, the others take none.

    Source: Hu et al., "MiniCPM", arXiv:2404.06395; shapes: Hägele et al., arXiv:2405.18392;
    powers: entries of modded-nanogpt's track 3, (1 - y) ** 1.2 in #20, 1 - y ** 0.4 in PR 345.
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    start = _tail_start("decay_steps", decay_steps, warmup, total_steps)
    y = _progress(step, start, total_steps)
    return _ramp(step, warmup) * _decay(decay_type, power, y, min_lr_ratio)


def _decay(decay_type: str, power: float | None, y: float, floor: float) -> float:
    if (power is None) == (decay_type in ("power", "1-power")):
        given = "is not given" if power is None else f"= {power}"
        raise ConfigError(
            f"schedule.power {given} with schedule.decay_type = '{decay_type}'; 'power' and"
            " '1-power' need one, as 1.2, the other types take none"
        )
    if decay_type == "exponential":
        if floor == 0:
            raise ConfigError(
                "schedule.min_lr_ratio = 0.0: an exponential decay needs a floor above 0, as 0.01"
            )
        return floor**y
    shapes = {
        "linear": 1 - y,
        "1-sqrt": 1 - math.sqrt(y),
        "cosine": _half_cosine(y),
        "mirror_cosine": 2 * (1 - y) - _half_cosine(y),
        "square": 1 - y**2,
        "power": (1 - y) ** (power or 1),
        "1-power": 1 - y ** (power or 1),
    }
    return _mix(floor, shapes[decay_type])


def power_cool(
    step: int,
    total_steps: int,
    *,
    warmup_steps: Steps = WARMUP,
    decay_steps: PositiveSteps = 0.8,
    beyond_steps: Steps = 0.08,
    power: Positive = 1.2,
    min_lr_ratio: Ratio = 0.0,
) -> float:
    """r + (1 - r)(1 - y) ** power, whose end lies `beyond_steps` after the end of the run.

    y is the progress from the start of the last `decay_steps` to step T + `beyond_steps`, which
    the run does not reach: it stops before the rates at which it would learn little.

    Source: "PowerCool" of modded-nanogpt's track 3, #20 and #46: power 1.2, stop at 2,690, end at
    2,900, decay of the hidden matrices from about step 514. With a floor: #25.
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    start = _tail_start("decay_steps", decay_steps, warmup, total_steps)
    y = _progress(step, start, total_steps + placed(beyond_steps, total_steps))
    return _ramp(step, warmup) * _mix(min_lr_ratio, (1 - y) ** power)


def fast_slow(
    step: int,
    total_steps: int,
    *,
    warmup_steps: Steps = WARMUP,
    decay_steps: PositiveSteps = 0.936,
    slow_steps: PositiveSteps = 0.44,
    slow_lr_ratio: Ratio = 0.2,
    power: Positive = 0.6,
) -> float:
    """1, then from 1 to q as 1 - (1 - q) y ** power, then linear to 0 over the last `slow_steps`.

    q is `slow_lr_ratio`; y is the progress of the fast part of the last `decay_steps`, which falls
    most at its start.

    Source: "fast-slow-decay" of modded-nanogpt's track 3, PR 351: of 3,125 steps the first 100 warm
    up, and the decay is fast from 200 and slow from 1,750 on.
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    start = _tail_start("decay_steps", decay_steps, warmup, total_steps)
    slow = _tail_start("slow_steps", slow_steps, warmup, total_steps)
    if slow < start:
        raise ConfigError(
            f"schedule.slow_steps = {slow_steps} is longer than schedule.decay_steps ="
            f" {decay_steps}, whose last part it is; make it shorter"
        )
    fast = 1 - _progress(step, start, slow) ** power
    tail = 1 - _progress(step, slow, total_steps)
    return _ramp(step, warmup) * _mix(slow_lr_ratio, fast) * tail


def inverse_sqrt(
    step: int, total_steps: int, *, warmup_steps: PositiveSteps = WARMUP, decay_steps: Steps = 0
) -> float:
    """min((t + 1) / W, sqrt(W / (t + 1))), with an optional linear tail to 0.

    The warm-up sets the scale of the whole curve, so it cannot be 0.

    Source: Vaswani et al., arXiv:1706.03762, section 5.3; the tail: Zhai et al., arXiv:2106.04560.
    """
    return power(
        step, total_steps, warmup_steps=warmup_steps, exponent=0.5, decay_steps=decay_steps
    )


def noam(step: int, total_steps: int, *, warmup_steps: PositiveSteps = WARMUP) -> float:
    """min((t + 1) / W, sqrt(W / (t + 1))): peak 1; `inverse_sqrt` without its tail.

    In the paper the learning rate is absolute, d_model ** -0.5 times min((t + 1) ** -0.5,
    (t + 1) * W ** -1.5). Its peak is scale * (d_model * W) ** -0.5, with a scale of 1 in the paper:
    6.99e-4 for d_model 512 and W 4000, of 100,000. Here that peak is the optimizer's `lr`.

    Source: Vaswani et al., arXiv:1706.03762, equation 3.
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    return min((step + 1) / warmup, math.sqrt(warmup / (step + 1)))


def cosine_inf(
    step: int,
    total_steps: int,
    *,
    warmup_steps: Steps = WARMUP,
    hold_steps: Steps = 0.2,
    min_lr_ratio: Ratio = 0.1,
) -> float:
    """Cosine to r, reached `hold_steps` before the end of the run, then r to the end.

    Source: `cos_inf_schedule` of the code of Semenov et al., arXiv:2509.01440.
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    end = _tail_start("hold_steps", hold_steps, warmup, total_steps)
    return _ramp(step, warmup) * _mix(min_lr_ratio, _half_cosine(_progress(step, warmup, end)))


def piecewise(
    step: int,
    total_steps: int,
    *,
    warmup_steps: Steps = WARMUP,
    knots: Knots = ((0.0, 1.0), (0.8, 1.0), (1.0, 0.0)),
    interpolation: Literal["constant", "linear", "cosine"] = "linear",
) -> float:
    """Through given knots [fraction of the run, factor]; level before the first and after the last.

    "constant" keeps each knot's factor until the next one. The warm-up multiplies the curve. The
    default is `wsd` with a linear decay.

    Source: optax.piecewise_interpolate_schedule.
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    x = min(step, total_steps - (interpolation == "constant")) / total_steps
    right = bisect_right(knots, x + ROUNDING / total_steps, key=itemgetter(0))  # knots passed
    (left_x, before), (right_x, after) = knots[max(right - 1, 0)], knots[min(right, len(knots) - 1)]
    if interpolation == "constant" or right in (0, len(knots)):
        return _ramp(step, warmup) * before
    y = _progress(x, left_x, right_x)
    kept = _half_cosine(y) if interpolation == "cosine" else 1 - y
    return _ramp(step, warmup) * (after + (before - after) * kept)


def power(
    step: int,
    total_steps: int,
    *,
    warmup_steps: Steps = WARMUP,
    hold_steps: Steps = 0,
    exponent: Positive = 0.51,
    decay_steps: Steps = 0.1,
) -> float:
    """(S / (t + 1)) ** exponent from step S = warm-up + hold on, 1 before; linear tail to 0.

    The paper's law is min(lr_max, a * batch * n ** -0.51), with n the tokens so far: S is where
    the law falls below lr_max. It needs no T until the tail begins.

    Source: Shen et al., "Power Scheduler", arXiv:2408.13359.
    """
    warmup = _warmup_end(warmup_steps, total_steps)
    start = _tail_start("decay_steps", decay_steps, warmup, total_steps)
    flat = max(1, warmup + placed(hold_steps, total_steps))
    law = (flat / max(flat, min(step, start) + 1)) ** exponent
    tail = 1 - _progress(step, start, total_steps) if decay_steps else 1.0
    return _ramp(step, warmup) * law * tail
