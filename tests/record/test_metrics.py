"""Metrics against published golden values, numpy's batch formulas and hand-made runs."""

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from record.metrics import (
    SpikeRule,
    StreamMetrics,
    Window,
    climb,
    is_outdated,
    loss_noise,
    spike_rule,
    summarize,
    to_target,
)

LONG = 20_000


def series() -> np.ndarray:
    return 3 + 0.05 * np.random.default_rng(0).standard_normal(LONG)


def spikes(losses, total_steps: int) -> tuple[int, int, float]:
    stream = StreamMetrics(total_steps)
    for loss in losses.tolist():
        stream.update(loss, 1.0)
    return stream.spikes, stream.evaluated, stream.spike_score


def with_bumps(where) -> np.ndarray:
    losses = series()
    losses[where] += 1.0
    return losses


FOUR = [3000, 7000, 11000, 15000]
SLOPE = 10 * (np.arange(LONG) + 50) ** -0.15 + 0.03 * np.random.default_rng(0).standard_normal(LONG)


@pytest.mark.parametrize(
    ("losses", "total_steps", "count", "evaluated"),
    [
        pytest.param(series(), LONG, 0, 19_000, id="clean"),
        pytest.param(with_bumps(FOUR), LONG, 4, 19_000, id="four spikes"),
        pytest.param(with_bumps(range(5000, 5020)), LONG, 17, 19_000, id="a burst masks itself"),
        pytest.param(SLOPE, LONG, 0, 19_000, id="a power law is no spike"),
        pytest.param(with_bumps(FOUR), 1999, 4, 19_872, id="rule of OLMo-core"),
    ],
)
def test_spike_score_golden_values(losses, total_steps, count, evaluated):
    assert spikes(losses, total_steps) == (count, evaluated, 100 * count / evaluated)


def test_four_spikes_are_the_published_percentage():
    assert spikes(with_bumps(FOUR), LONG)[2] == pytest.approx(0.02105, abs=5e-6)


def test_rule_changes_at_two_thousand_steps():
    assert spike_rule(1999) == SpikeRule(128, 6.0, both_sides=False)
    assert spike_rule(2000) == SpikeRule(1000, 7.0, both_sides=True)


def test_downward_spike_counts_in_long_runs_only():
    losses = series()[:3000]
    losses[2500] -= 1.0
    assert spikes(losses, 3000)[0] == 1
    assert spikes(losses, 1999)[0] == 0


def test_nothing_judged_yet_scores_zero():
    stream = StreamMetrics(1999)
    scores = [stream.update(float(t % 2), 1.0)["train/spike_score"] for t in range(128)]
    assert scores == [0.0] * 128
    assert stream.evaluated == 0
    assert stream.update(100.0, 1.0)["train/spike_score"] == 100.0


def test_constant_window_has_no_spikes():
    stream = StreamMetrics(1999)
    for loss in [3.0] * 200 + [4.0]:
        stream.update(loss, 1.0)
    assert (stream.spikes, stream.evaluated) == (0, 73)


def test_a_step_with_spikes_in_loss_and_norm_counts_once_and_either_suffices():
    values = series()[:400].tolist()
    for loss_bump, norm_bump, count in [(1, 0, 1), (0, 1, 1), (1, 1, 1)]:
        stream = StreamMetrics(400)
        for t, value in enumerate(values):
            stream.update(value + loss_bump * (t == 300), value + norm_bump * (t == 300))
        assert stream.spikes == count


def test_nonfinite_values_enter_no_window_and_no_mean():
    clean, dirty = StreamMetrics(400), StreamMetrics(400)
    for t, value in enumerate(series()[:400].tolist()):
        expected = clean.update(value, value)
        if t % 7 == 0:
            dirty.update(math.nan, math.inf)
        assert dirty.update(value, value) == expected
    assert dirty.evaluated == clean.evaluated


finite = st.floats(-1e3, 1e3, allow_subnormal=False)


@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=300), st.sampled_from([8, 32]))
@settings(max_examples=60, deadline=None)
def test_stream_equals_numpy_on_the_whole_history(pairs, window):
    stream = StreamMetrics(1999)
    rule = SpikeRule(window, 2.0, both_sides=True)
    stream.loss_window, stream.norm_window = Window(rule), Window(rule)
    losses, norms = np.array(pairs).T
    for t, (loss, norm) in enumerate(pairs):
        scores = stream.update(loss, norm)
        std = np.std(losses[: t + 1])
        assert scores["train/stability_score"] == pytest.approx(1 / (1 + std), rel=1e-9, abs=1e-9)
    judged = hits = borderline = 0
    for t in range(window, len(losses)):
        judged += 1
        verdicts = []
        for x in (losses, norms):
            mean, sigma = np.mean(x[t - window : t]), np.std(x[t - window : t])
            borderline += abs(abs(x[t] - mean) - 2 * sigma) < 1e-9 or 0 < sigma < 1e-6
            verdicts.append(sigma > 1e-10 and abs(x[t] - mean) >= 2 * sigma)
        hits += any(verdicts)
    assert stream.evaluated == judged
    assert abs(stream.spikes - hits) <= borderline  # equality up to rounding at the threshold


def test_window_survives_a_huge_value_without_drift():
    window = Window(SpikeRule(128, 6.0, both_sides=True))
    values = series()[:1000]
    values[300] = 1e18
    for value in values.tolist():
        window.update(value)
    # running sums would have kept the rounding of 1e36 here
    assert np.std(window.values) == np.std(values[-128:]) or np.isclose(
        np.std(window.values), np.std(values[-128:]), rtol=1e-12
    )
    assert window.update(3.0) is False
    assert window.update(3.5) is True


@given(st.lists(st.tuples(finite, finite), max_size=200), st.integers(0, 200))
@settings(max_examples=40, deadline=None)
def test_resumed_stream_gives_the_same_floats(pairs, cut):
    whole, before = StreamMetrics(1999), StreamMetrics(1999)
    for pair in pairs[:cut]:
        whole.update(*pair)
        before.update(*pair)
    after = StreamMetrics(1999)
    after.load_state_dict(json.loads(json.dumps(before.state_dict())))
    for pair in pairs[cut:]:
        assert whole.update(*pair) == after.update(*pair)
    assert whole.state_dict() == after.state_dict()


def test_state_of_a_run_under_another_rule_is_refused():
    with pytest.raises(ValueError, match=r"window of 128 values.*1000.*total_steps"):
        StreamMetrics(5000).load_state_dict(StreamMetrics(500).state_dict())


def run_records(losses, *, val=None, norms=None, lrs=None, tokens=512) -> list[dict]:
    """Lines as the trainer writes them: the evaluation before update s, then the update."""
    val, lines = val or {}, []
    for s in range(len(losses) + 1):
        if s in val:
            lines.append({"step": s, "val/loss": val[s], "time/eval_seconds": 1.0})
        if s < len(losses):
            lines.append(
                {
                    "step": s,
                    "train/loss": float(losses[s]),
                    "train/grad_norm": float(norms[s]) if norms is not None else 1.0,
                    "train/lr": float(lrs[s]) if lrs is not None else 1e-3,
                    "time/train_seconds": 0.5 * (s + 1),
                    "time/step_ms": 500.0 + s,
                    "time/optimizer_ms": 10.0 + s % 3,
                    "time/data_wait_ms": 0.5,
                    "tokens": tokens * (s + 1),
                    "tokens_per_second": 2.0 * tokens,
                    "mfu": 0.25 if s % 2 else 0.5,
                    "memory/peak_gib": 1.0 + 0.01 * min(s, 3),
                }
            )
    return lines


def test_summary_of_a_short_run_has_the_numbers_of_its_lines():
    losses = np.linspace(10.0, 6.0, 9)
    summary = summarize(run_records(losses, val={0: 10.9, 4: 7.5, 8: 6.5, 9: 6.75}), 9)
    assert summary == {
        "steps": 9,
        "initial_val_loss": 10.9,
        "final_val_loss": 6.75,
        "final_test_loss": None,
        "best_val_loss": 6.5,
        "best_val_step": 8,
        "final_train_loss": 6.0,
        "avg_loss": 8.0,
        "avg_grad_norm": 1.0,
        "stability_score": pytest.approx(1 / (1 + np.std(losses)), rel=1e-14),
        "spike_score": 0.0,
        "loss_noise": pytest.approx(0.0, abs=1e-12),
        "converged_step": None,
        "nonfinite_updates": 0,
        "train_seconds": 4.5,
        "step_ms_median": 504.0,
        "step_ms_p99": pytest.approx(507.92),
        "optimizer_ms_median": 11.0,
        "data_wait_ms_median": 0.5,
        "tokens": 9 * 512,
        "tokens_per_second": 1024.0,
        "mfu": pytest.approx(0.389, abs=1e-3),
        "peak_memory_gib": 1.03,
        "climb_updates": 0,
        "diverged": False,
        "diverged_reason": None,
    }


def test_summary_of_nothing_is_none_everywhere():
    summary = summarize([], 100)
    assert summary.pop("steps") == summary.pop("nonfinite_updates") == 0
    assert summary.pop("diverged") is False
    assert set(summary.values()) == {None}


def test_unfinished_run_has_no_final_val_loss():
    summary = summarize(run_records([5.0, 4.0], val={0: 10.0, 2: 4.0}), 10)
    assert (summary["final_val_loss"], summary["best_val_loss"]) == (None, 4.0)
    assert summary["diverged"] is False


def test_unknown_mfu_on_a_cpu_is_none():
    lines = [line | {"mfu": None} for line in run_records([5.0, 4.0])]
    assert summarize(lines, 2)["mfu"] is None


def test_summary_equals_the_stream():
    losses = with_bumps(FOUR)[:5000]
    norms = 1 + 0.1 * np.random.default_rng(1).standard_normal(5000)
    stream = StreamMetrics(5000)
    for loss, norm in zip(losses.tolist(), norms.tolist(), strict=True):
        last = stream.update(loss, norm)
    summary = summarize(run_records(losses, norms=norms), 5000)
    assert summary["spike_score"] == last["train/spike_score"]
    assert summary["stability_score"] == last["train/stability_score"]


def test_loss_noise_recovers_the_noise_of_a_falling_curve():
    t = np.arange(6000)
    noise = 0.03 * np.random.default_rng(3).standard_normal(6000)
    losses = 3 + 7 * (t + 50.0) ** -0.5 + noise
    assert loss_noise(losses, 6000) == pytest.approx(0.03, rel=0.03)
    assert loss_noise(losses[:1500], 1500) == pytest.approx(0.03, rel=0.05)


def test_loss_noise_is_the_residual_of_the_running_median():
    losses = series()[:2300]
    residuals = [losses[t] - np.median(losses[t - 50 : t + 51]) for t in range(50, 2250)]
    assert loss_noise(losses, 2300) == pytest.approx(np.std(residuals), rel=1e-12)
    short = losses[:1000]
    assert loss_noise(short, 1000) == pytest.approx(np.std(np.diff(short)) / math.sqrt(2))


def test_warmup_ends_where_the_learning_rate_first_peaks():
    rates = np.minimum(np.arange(1, 201) / 100, 1.0)
    losses = np.concatenate([np.tile([9.0, 8.0], 50), np.full(100, 5.0)])
    lines = run_records(losses, lrs=rates)
    # 99 updates of warmup are left out, the last of the jumps is not
    assert (
        summarize(lines, 200)["loss_noise"] == summarize(lines, 200, warmup_steps=99)["loss_noise"]
    )
    assert summarize(lines, 200, warmup_steps=100)["loss_noise"] == 0.0
    assert summarize(lines, 200, warmup_steps=0)["loss_noise"] > 0.4


@pytest.mark.parametrize(
    ("losses", "step"),
    [([5, 4, 3.997, 3.9], 2), ([5, 5, 4], 1), ([5, 4, 3], None), ([5], None), ([0, 0, 1], None)],
)
def test_converged_step_is_the_first_small_relative_change(losses, step):
    assert summarize(run_records(losses), 10)["converged_step"] == step


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nonfinite_loss_or_norm_or_val_loss_is_divergence(bad):
    good = [5.0, 4.0, 3.0]
    val = {0: 10.0, 3: 3.0}
    cases = [
        run_records([5.0, bad, 3.0], val=val),
        run_records(good, val=val, norms=[1.0, 1.0, bad]),
        run_records(good, val={0: 10.0, 3: bad}),
    ]
    for lines in cases:
        summary = summarize(lines, 3)
        assert (summary["diverged"], summary["diverged_reason"]) == (True, "non-finite")
    assert summarize(cases[0], 3)["nonfinite_updates"] == 1
    assert summarize(cases[0], 3)["avg_loss"] == 4.0
    assert summarize(run_records(good, val=val), 3)["diverged"] is False


def test_a_run_that_never_learned_is_divergence_only_at_its_end():
    assert summarize(run_records([9.0] * 3, val={0: 10.9, 3: 10.81}), 3)["diverged_reason"] == (
        "never learned"
    )
    assert summarize(run_records([9.0] * 3, val={0: 10.9, 3: 10.79}), 3)["diverged"] is False
    assert summarize(run_records([9.0] * 3, val={0: 10.9, 3: 10.81}), 30)["diverged"] is False
    assert summarize(run_records([9.0] * 3, val={3: 10.81}), 3)["diverged"] is False


def ema_above(losses, warm: int) -> int:
    """Longest run of steps with the average 0.5 above its minimum so far, by hand."""
    ema = [losses[0]]
    for loss in losses[1:]:
        ema.append(0.99 * ema[-1] + 0.01 * loss)
    above = np.array(ema) > np.minimum.accumulate(ema) + 0.5
    above[:warm] = False
    longest = run = 0
    for flag in above:
        run = run + 1 if flag else 0
        longest = max(longest, run)
    return longest


@pytest.mark.parametrize("length", [60, 110, 160, 400])
@pytest.mark.parametrize("warm", [0, 520])
def test_a_climb_is_how_long_the_average_stands_above_its_minimum(length, warm):
    up = np.concatenate([np.full(500, 4.0), np.full(length, 6.0)])
    back = np.concatenate([up, np.full(600, 4.0)])
    assert climb(back, warm)[:2] == (ema_above(back, warm), 0)
    assert climb(up, warm)[:2] == (ema_above(up, warm),) * 2
    assert climb(up, warm).lowest == 4.0


def test_a_run_that_recovers_from_a_spike_has_not_diverged_and_says_how_long_it_stood_high():
    losses = np.concatenate([np.full(500, 4.0), np.full(150, 9.0), np.full(850, 4.0)])
    summary = summarize(run_records(losses, val={0: 11.0, 1500: 4.0}), 1500)
    assert (summary["diverged"], summary["diverged_reason"]) == (False, None)
    assert summary["climb_updates"] == ema_above(losses, 0) >= 100
    cut = summarize(run_records(losses[:650], val={0: 11.0, 650: 9.0}), 650)
    assert cut["diverged_reason"] == "loss climbed"


def test_an_average_that_lags_behind_does_not_make_a_recovered_run_diverge():
    losses = np.concatenate([np.full(500, 4.0), np.full(100, 12.0), np.full(50, 4.0)])
    assert climb(losses, 0).last >= 100
    for final, reason in ((4.4, None), (4.6, "loss climbed")):
        lines = run_records(losses, val={0: 11.0, 650: final})
        assert summarize(lines, 650)["diverged_reason"] == reason


def test_a_summary_of_an_earlier_version_is_judged_anew_where_its_loss_climbed():
    assert is_outdated({"diverged": True, "diverged_reason": "loss climbed"})
    assert not is_outdated({"diverged_reason": "loss climbed", "climb_updates": 120})
    assert not is_outdated({"diverged": True, "diverged_reason": "non-finite"})
    assert not is_outdated({"diverged": False, "diverged_reason": None})


def test_a_learning_run_does_not_climb():
    assert climb(SLOPE, 0).longest == 0


def test_costs_of_reaching_a_target_are_those_of_the_first_evaluation_below_it():
    lines = run_records([5.0] * 6, val={0: 11.0, 2: 7.0, 4: 6.0, 6: 6.5})
    for target, steps in [(12.0, 0), (7.0, 2), (6.9, 4), (6.0, 4)]:
        assert to_target(lines, target) == {
            "steps_to_target": steps,
            "seconds_to_target": 0.5 * steps,
            "tokens_to_target": 512 * steps,
        }
    assert set(to_target(lines, 5.9).values()) == {math.inf}
    assert set(to_target([], 5.9).values()) == {math.inf}
    assert set(to_target(run_records([5.0], val={0: math.nan}), 99.0).values()) == {math.inf}


# ------------------------------------------------------------------- where a definition begins


def test_spike_at_exactly_the_limit_counts_by_olmo_2s_rule_only():
    assert spike_rule(2000).spike(7.0, 0.0, 1.0)
    assert spike_rule(2000).spike(-7.0, 0.0, 1.0)
    assert not spike_rule(1999).spike(6.0, 0.0, 1.0)
    assert spike_rule(1999).spike(6.0001, 0.0, 1.0)
    assert not spike_rule(1999).spike(1.0, 0.0, 1e-10)  # a constant window but for rounding


@pytest.mark.parametrize("name", ["time/train_seconds", "tokens"])
def test_a_line_without_clock_or_tokens_keeps_the_last_known_cost(name):
    lines = run_records([5.0] * 4, val={2: 7.0, 4: 6.0})
    incomplete = [line for line in lines if line["step"] < 2]
    incomplete += [{k: v for k, v in x.items() if k != name} for x in lines if x["step"] >= 2]
    spent = to_target(incomplete, 6.5)
    assert spent["steps_to_target"] == 4
    assert spent["seconds_to_target"] == (1.0 if name == "time/train_seconds" else 2.0)
    assert spent["tokens_to_target"] == (1024 if name == "tokens" else 2048)


def test_costs_of_a_target_do_not_depend_on_the_order_of_lines():
    lines = run_records([5.0] * 6, val={0: 11.0, 2: 7.0, 4: 6.0})
    assert to_target(lines[::-1], 6.5) == to_target(lines, 6.5)
    assert to_target(lines[::-1], 6.5)["seconds_to_target"] == 2.0


def test_a_target_that_is_missed_costs_infinity_on_every_axis():
    assert to_target(run_records([5.0], val={1: 5.0}), 1.0) == {
        "steps_to_target": math.inf,
        "seconds_to_target": math.inf,
        "tokens_to_target": math.inf,
    }


@pytest.mark.parametrize("missing", ["tokens", "time/train_seconds"])
def test_throughput_is_unknown_without_tokens_or_without_clock(missing):
    lines = [line | {missing: None} for line in run_records([5.0, 4.0])]
    assert summarize(lines, 2)["tokens_per_second"] is None


def test_mfu_is_weighted_by_the_time_of_each_update():
    lines = run_records([5.0, 4.0])
    lines[0] |= {"mfu": 0.2, "time/step_ms": 0.5}
    lines[1] |= {"mfu": 0.6, "time/step_ms": 1.5}
    assert summarize(lines, 2)["mfu"] == pytest.approx(0.5)
    assert summarize([line | {"time/step_ms": 0.0} for line in lines], 2)["mfu"] is None


def test_without_recorded_rates_no_update_is_warmup():
    lines = [line | {"train/lr": None} for line in run_records([9.0, 5.0, 5.0])]
    assert summarize(lines, 3)["loss_noise"] == pytest.approx(np.std([4.0, 0.0]) / math.sqrt(2))


def test_loss_noise_changes_its_rule_at_2000_updates_and_wants_a_whole_window():
    losses = series()[:500]
    residuals = (losses - ndimage.median_filter(losses, 101))[50:-50]
    by_differences = np.std(np.diff(losses)) / math.sqrt(2)
    assert loss_noise(losses, 2000) == pytest.approx(np.std(residuals), rel=1e-12)
    assert loss_noise(losses, 1999) == pytest.approx(by_differences, rel=1e-12)
    short = losses[:101]  # one window would have one residual, and no spread
    assert loss_noise(short, 2000) == pytest.approx(np.std(np.diff(short)) / math.sqrt(2))
    assert loss_noise(losses[:2], 1999) == 0.0
    assert loss_noise(losses[:1], 1999) is None


def test_loss_noise_of_a_long_run_is_that_of_one_median_filter():
    losses = SLOPE[:9000]
    residuals = (losses - ndimage.median_filter(losses, 101))[50:-50]
    assert loss_noise(losses, LONG) == pytest.approx(np.std(residuals), rel=1e-12)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("losses", "step"),
    [
        ([1000.0, 999.0, 998.5], 2),  # one in a thousand is not yet below
        ([100.0, 5.0, 4.95], None),  # near relative to the first loss, not to the one before
        ([0.0, 0.0], None),
        ([0.0, 1.0], None),
        ([math.nan, math.inf, math.inf], None),
    ],
)
def test_converged_step_compares_with_the_loss_before_and_warns_of_nothing(losses, step):
    assert summarize(run_records(losses), 10)["converged_step"] == step


def test_a_final_loss_exactly_a_tenth_below_the_start_has_not_learned():
    assert 10.5 - 0.1 == 10.4
    lines = run_records([9.0], val={0: 10.5, 1: 10.4})
    assert summarize(lines, 1)["diverged_reason"] == "never learned"


@pytest.mark.parametrize("start", [1, 500])
def test_climbing_is_a_hundred_updates_above_not_ninety_nine(start):
    def losses(up):
        return np.concatenate([np.full(start, 4.0), np.full(up, 1000.0)])

    for warm in (0, start):
        assert climb(losses(100), warm).stays(2000, None)
        assert not climb(losses(99), warm).stays(2000, None)
        assert climb(losses(200), warm).stays(20_000, None)  # one percent of a long run
        assert not climb(losses(199), warm).stays(20_000, None)
    assert not climb(losses(100), start + 1).stays(2000, None)
    lines = run_records(losses(100), val={0: 11.0, start + 100: 5.0})
    assert summarize(lines, start + 100)["diverged_reason"] == "loss climbed"
