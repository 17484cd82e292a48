"""What is refused, and what the reader of a comparison is told."""

from dataclasses import replace

import pytest

from report.comparable import cautions, refusal
from report.sources import read
from tests.report.contest_folder import HASH, configuration, curve, write_run
from tests.report.studies import BASE, FIVE, a_run, a_study, changed, rows


@pytest.mark.parametrize(
    ("name", "what"),
    [("weights", "initial weights"), ("batches", "first batches"), ("data", "shards of tokens")],
)
def test_different_hashes_for_the_same_seeds_are_refused(name, what):
    hashes = {"weights": "w2", "batches": "b2", "data": "d"}
    study = changed(a_study(FIVE), "base", 2, hashes=hashes)
    c = rows(changed(study, "good", 2, hashes=hashes | {name: "0" * 64}))["good"].comparison
    assert c.call == "refused"
    assert c.words.startswith(f"refused: {what} differ for seed 2 (base")
    assert c.p is None


def test_arm_that_starts_where_another_ended_is_refused_with_the_reason():
    study = a_study(FIVE)
    first = study.of("base")[0]
    summary = {"initial_val_loss": first.summary["final_val_loss"], "final_val_loss": 3.0}
    shared = changed(study, "good", 1, summary=summary, hashes={"weights": "x", "batches": "b1"})
    words = rows(shared)["good"].comparison.words
    assert "initial weights differ for seed 1" in words
    assert "it begins at val loss 3.3, where base (seed 1) ended" in words


def test_shared_state_is_seen_without_hashes():
    study = a_study(FIVE)
    study = replace(study, runs=[replace(run, hashes={}) for run in study.runs])
    assert rows(study)["good"].comparison.words == "better"
    assert any("not proven" in note for note in rows(study)["good"].comparison.notes)
    later = changed(study, "good", 1, summary={"initial_val_loss": 3.3, "final_val_loss": 3.1})
    assert rows(later)["good"].comparison.call == "refused"


def test_sequential_study_is_refused_from_real_folders(tmp_path):
    """Arms in sequence on the same weights, as a study of 2024 trained them."""
    level = 0.0
    for arm in ("constant", "step", "cosine"):
        for seed in (1, 2):
            weights = f"{seed:08d}{HASH}" if arm == "constant" else f"{arm}{seed}{HASH}"
            hashes = {"weights": weights, "batches": f"b{seed}{HASH}"}
            losses = curve(seed, 20, 0.0) - level
            write_run(tmp_path / f"{arm}{seed}", configuration(arm, seed, steps=20), losses,
                      hashes=hashes)  # fmt: skip
        level += 2.0
    found = rows(replace(read([str(tmp_path)]), baseline="constant"))
    assert {found[arm].comparison.call for arm in ("step", "cosine")} == {"refused"}


def test_a_seed_without_effect_is_refused():
    hashes = {"weights": "w1", "batches": "b1"}
    study = changed(changed(a_study(FIVE), "good", 2, hashes=hashes), "base", 2, hashes=hashes)
    words = rows(study)["good"].comparison.words
    assert "seeds 1 and 2 have the same initial weights" in words


def longer(study, arm):
    runs = [a_run(arm, r.seed, r.summary["final_val_loss"], steps=200) if r.arm == arm else r
            for r in study.runs]  # fmt: skip
    return replace(study, runs=runs)


def test_unequal_lengths_are_refused_unless_the_contest_says_so():
    study = longer(a_study(FIVE), "good")
    words = rows(study)["good"].comparison.words
    assert words == "refused: unequal lengths: 819,200 tokens against 409,600 of the baseline"
    said = replace(study, declared={"good": ("train.total_steps",)})
    c = rows(said)["good"].comparison
    assert c.call == "better"
    assert any("train.total_steps is 200 against 100 (as the contest says)" in n for n in c.notes)


def test_other_configuration_is_named():
    study = a_study(FIVE)
    config = configuration("good", 2, steps=100, train__grad_clip=0.5)
    for seed in BASE:
        study = changed(study, "good", seed, config=config)
    notes = rows(study)["good"].comparison.notes
    assert "train.grad_clip is 0.5 against None (not in the contest)" in notes
    assert not any("optimizer" in note or "schedule" in note for note in notes)


# -------------------------------------------------------------------------- the rules one by one


def with_config(study, arm, key, value):
    """The study with one key of `arm`'s runs changed."""
    table, _, name = key.partition(".")
    runs = []
    for run in study.runs:
        config = run.config | {table: run.config[table] | {name: value}}
        runs.append(replace(run, config=config) if run.arm == arm else run)
    return replace(study, runs=runs)


def with_hashes(study, arm, **hashes):
    runs = [
        replace(r, hashes={k: f"{v}{r.seed}" for k, v in hashes.items()}) if r.arm == arm else r
        for r in study.runs
    ]
    return replace(study, runs=runs)


def with_summary(study, arm, **numbers):
    runs = [
        replace(run, summary=run.summary | numbers) if run.arm == arm else run for run in study.runs
    ]
    return replace(study, runs=runs)


TWO = {"base": {1: 3.3, 2: 3.4}, "good": {1: 3.2, 2: 3.3}}


def test_arms_that_start_alike_may_be_compared():
    assert refusal(a_study(FIVE), "good", "base") is None
    assert refusal(a_study({"base": {1: 3.3}, "good": {2: 3.2}}), "good", "base") is None


@pytest.mark.parametrize("arm", ["base", "good"])
def test_a_run_that_is_there_twice_is_named_with_both_seeds(arm):
    study = a_study(FIVE)
    for seed in (1, 3):
        study = changed(study, arm, seed, hashes={"weights": "w", "batches": "b"})
    assert refusal(study, "good", "base") == (
        f"{arm}: seeds 1 and 3 have the same initial weights and the same batches, "
        "so they are the same run"
    )


@pytest.mark.parametrize("same", ["weights", "batches"])
def test_seeds_that_share_weights_or_batches_alone_are_two_runs(same):
    study = a_study({"base": BASE})
    hashes = [{"weights": f"w{i}", "batches": f"b{i}"} | {same: "x"} for i in range(3)]
    for seed, each in zip(BASE, hashes, strict=True):
        study = changed(study, "base", seed, hashes=each)
    twin = replace(study, runs=[*study.runs, *(replace(r, arm="good") for r in study.runs)])
    assert refusal(twin, "good", "base") is None
    for seed in BASE:  # one of the hashes alone proves nothing
        study = changed(study, "base", seed, hashes={same: "x"})
    assert refusal(study, "base", "base") is None


@pytest.mark.parametrize(
    ("key", "value", "hash_of"),
    [
        ("model.n_layer", 2, "weights"),
        ("model.block_size", 64, "weights"),
        ("train.batch_tokens", 2048, "batches"),
        ("model.block_size", 64, "batches"),
        ("data.dir", "elsewhere", "batches"),
    ],
)
def test_other_starts_are_allowed_where_the_contest_declares_what_changes_them(key, value, hash_of):
    study = with_config(a_study(TWO), "good", key, value)
    study = with_hashes(study, "good", **{"weights": "w", "batches": "b", hash_of: "other"})
    words = refusal(study, "good", "base")
    what = "initial weights" if hash_of == "weights" else "first batches"
    assert words == f"{what} differ for seed 1 (base {hash_of[0]}1, good other1)"
    declared = {"good": (key,), "base": ()}
    assert refusal(replace(study, declared=declared), "good", "base") is None
    unrelated = {"good": ("optimizer.lr",)}
    assert refusal(replace(study, declared=unrelated), "good", "base") == words


def test_hashes_are_shown_by_their_first_eight_digits():
    study = with_hashes(a_study(TWO), "good", weights="0123456789abcdef", batches="b")
    study = with_hashes(study, "base", weights="fedcba9876543210", batches="b")
    assert refusal(study, "good", "base") == (
        "initial weights differ for seed 1 (base fedcba98, good 01234567)"
    )


def test_a_declared_model_does_not_excuse_other_batches():
    study = with_config(a_study(TWO), "good", "model.n_layer", 2)
    study = with_hashes(study, "good", weights="x", batches="y")
    words = refusal(replace(study, declared={"good": ("model.n_layer",)}), "good", "base")
    assert words == "first batches differ for seed 1 (base b1, good y1)"


def test_the_loss_before_the_first_update_may_differ_by_a_fiftieth_of_a_nat():
    study = with_hashes(a_study(TWO), "good")
    assert (
        refusal(with_summary(study, "good", initial_val_loss=5.5 + 0.0199), "good", "base") is None
    )
    apart = with_summary(study, "good", initial_val_loss=5.53)
    assert refusal(apart, "good", "base") == (
        "val loss before the first update differs for seed 1 (base 5.5000, good 5.5300)"
    )
    below = with_summary(study, "good", initial_val_loss=5.47)
    assert refusal(below, "good", "base").endswith("(base 5.5000, good 5.4700)")
    deeper = with_config(apart, "good", "model.n_layer", 2)
    assert refusal(deeper, "good", "base") is not None
    declared = replace(deeper, declared={"good": ("model.n_layer",)})
    assert refusal(declared, "good", "base") is None
    for arm in TWO:  # not recorded
        unknown = with_summary(apart, arm, initial_val_loss=None)
        assert refusal(unknown, "good", "base") is None


def test_a_run_that_begins_where_another_ended_is_refused_by_its_name():
    study = with_hashes(a_study({"base": {1: 3.3}, "good": {2: 3.2}, "other": {5: 5.5}}), "good")
    study = with_summary(study, "other", initial_val_loss=6.0)
    said = ": it begins at val loss 5.5, where other (seed 5) ended"
    assert refusal(study, "good", "base") == f"good-2-0.001{said}"
    near = with_summary(study, "other", final_val_loss=5.5 + 1e-7)
    assert refusal(near, "good", "base") is None
    nearer = with_summary(study, "other", final_val_loss=5.5 + 1e-9)
    assert refusal(nearer, "good", "base") is not None
    still = with_summary(study, "other", initial_val_loss=5.5)  # lr 0: it ended where it began
    assert refusal(still, "good", "base") is None


def test_lengths_count_as_tokens_of_the_whole_run():
    study = a_study(TWO)
    assert refusal(with_config(study, "good", "train.total_steps", 50), "good", "base") == (
        "unequal lengths: 204,800 tokens against 409,600 of the baseline"
    )
    shorter = with_config(study, "good", "train.batch_tokens", 2048)
    assert refusal(shorter, "good", "base").startswith("unequal lengths: 204,800 tokens")
    assert refusal(with_config(shorter, "good", "train.total_steps", 200), "good", "base") is None
    for key in ("train.total_steps", "train.batch_tokens"):
        declared = replace(shorter, declared={"good": (key,)})
        assert refusal(declared, "good", "base") is None
    unknown = with_config(study, "good", "train.batch_tokens", None)
    assert refusal(unknown, "good", "base") is None
    mixed = changed(shorter, "good", 2, config=study.runs[0].config)  # a run of either length
    assert refusal(mixed, "good", "base") is None


def test_versions_of_own_classes_are_named_though_their_keys_have_dots():
    study = a_study(TWO)
    for arm, version in (("good", "69aba5cf"), ("base", "9f4ed7ce")):
        for run in study.of(arm):
            config = run.config | {"versions": {"my_lab.Opt": version}}
            study = changed(study, arm, run.seed, config=config, contest=None)
    assert cautions(study, "good", "base") == ("versions.my_lab.Opt is 69aba5cf against 9f4ed7ce",)


def test_equal_runs_need_no_caution():
    assert cautions(a_study(TWO), "good", "base") == ()


def test_cautions_say_what_is_missing_different_or_unfinished():
    study = changed(a_study(TWO), "good", 2, status="stopped")
    study = changed(study, "base", 1, facts={"launches": [{"environment": {"device": "H100"}}]})
    study = changed(study, "good", 1, facts={"launches": [{"environment": {"device": "cpu"}}]})
    study = changed(study, "good", 1, hashes={})
    study = with_config(study, "good", "train.grad_clip", 0.5)
    study = with_config(study, "good", "eval.tokens", 1)
    study = with_config(study, "good", "train.micro_batch_size", 1)
    study = replace(study, declared={"good": ("eval.tokens",)})
    assert cautions(study, "good", "base") == (
        "hashes of weights and batches are not recorded for all runs: equal starts are not proven",
        "eval.tokens is 1 against 65536 (as the contest says)",
        "train.grad_clip is 0.5 against None (not in the contest)",
        "not finished: 1 of 2 runs",
        "different devices (H100, cpu): times do not compare, rounding differs",
    )


def test_a_run_that_has_not_begun_needs_no_hashes_and_no_configuration():
    study = changed(a_study(TWO), "good", 1, status="missing", hashes={}, config={}, facts={})
    assert cautions(study, "good", "base") == ("not finished: 1 of 2 runs",)
    for seed in (1, 2):
        study = changed(study, "good", seed, status="missing", hashes={}, config={}, facts={})
    assert cautions(study, "good", "base") == ("not finished: 2 of 2 runs",)


def test_what_the_contest_declares_for_the_baseline_counts_as_well():
    study = with_config(a_study(TWO), "good", "train.total_steps", 50)
    declared = replace(study, declared={"base": ("train.total_steps",)})
    assert refusal(declared, "good", "base") is None
    told = "train.total_steps is 50 against 100 (as the contest says)"
    assert told in cautions(declared, "good", "base")
    deeper = with_config(a_study(TWO), "good", "model.n_layer", 2)
    deeper = with_hashes(deeper, "good", weights="x", batches="b")
    assert refusal(replace(deeper, declared={"base": ("model.n_layer",)}), "good", "base") is None


def test_one_run_of_each_arm_is_enough_to_know_their_lengths():
    study = with_config(
        a_study({"base": {1: 3.3}, "good": {1: 3.2}}), "good", "train.total_steps", 50
    )
    assert refusal(study, "good", "base").startswith("unequal lengths")
    declared = replace(study, declared={"good": ("train.total_steps",)})
    assert refusal(declared, "good", "base") is None


def test_starts_apart_by_exactly_the_tolerance_are_alike():
    study = with_summary(a_study(TWO), "base", initial_val_loss=0.0)
    assert refusal(with_summary(study, "good", initial_val_loss=0.02), "good", "base") is None


def test_other_settings_do_not_excuse_another_start():
    study = with_summary(a_study(TWO), "good", initial_val_loss=5.53)
    study = with_config(study, "good", "train.grad_clip", 0.5)
    declared = replace(study, declared={"good": ("train.grad_clip",)})
    assert refusal(declared, "good", "base").startswith("val loss before the first update differs")


def test_refusal_names_the_run_where_the_baseline_began():
    study = with_hashes(a_study(TWO | {"other": {9: 5.5}}), "base", weights="x", batches="b")
    study = with_summary(study, "other", initial_val_loss=6.0)
    study = with_summary(study, "good", initial_val_loss=5.4)
    assert refusal(study, "good", "base") == (
        "initial weights differ for seed 1 (base x1, good w1): it begins at val loss 5.5, where "
        "other (seed 9) ended"
    )


def test_children_of_one_checkpoint_are_compared_beside_their_parent():
    """Their first val loss is the parent's last one, as their `init` says."""
    study = a_study(FIVE)
    init = {"init": "run:parent@100#0123456789abcdef"}
    runs = [a_run("parent", 1, 3.5)]
    for run in study.runs:
        summary = run.summary | {"initial_val_loss": 3.5}
        hashes = run.hashes | {"weights": "the parent's"}
        runs.append(replace(run, config=run.config | init, summary=summary, hashes=hashes))
    children = replace(study, runs=runs)
    assert rows(children)["good"].comparison.call == "better"
    unsaid = [
        replace(run, config={k: v for k, v in run.config.items() if k != "init"}) for run in runs
    ]
    assert rows(replace(study, runs=unsaid))["good"].comparison.call == "refused"


def launched(*environments, **facts):
    return {"launches": [{"environment": each} for each in environments], **facts}


def on(study, arm, facts):
    """The study, whose runs of `arm` have these facts."""
    return replace(study, runs=[replace(r, facts=facts) if r.arm == arm else r for r in study.runs])


BF16, F32 = {"device": "H100", "dtype": "bfloat16"}, {"device": "V100", "dtype": "float32"}


def test_arms_of_other_precision_are_refused_unless_their_settings_say_so():
    study = on(on(a_study(FIVE), "base", launched(BF16)), "good", launched(F32))
    words = "trained in float32 against bfloat16 of the baseline"
    assert refusal(study, "good", "base") == words
    asked = with_config(study, "good", "train.dtype", "float32")
    assert refusal(asked, "good", "base") is None
    assert any("train.dtype is float32 against" in line for line in cautions(asked, "good", "base"))
    assert refusal(on(study, "good", launched(BF16 | {"device": "V100"})), "good", "base") is None
    assert refusal(on(study, "good", {}), "good", "base") is None  # not recorded


def test_a_run_that_went_on_in_another_precision_is_refused_by_its_name():
    study = on(on(a_study(FIVE), "base", launched(BF16)), "good", launched(BF16))
    for facts in (launched(BF16, F32), launched(BF16, branched_from={"run": "trunk"} | F32)):
        mixed = changed(study, "good", 2, facts=facts)
        words = "good-2-0.001 was trained in bfloat16 and float32, on different hardware"
        assert refusal(mixed, "good", "base") == words


def test_a_device_of_an_earlier_launch_counts():
    moved = launched(BF16, BF16 | {"device": "A100"})
    study = on(on(a_study(TWO), "base", launched(BF16)), "good", moved)
    told = "different devices (A100, H100): times do not compare, rounding differs"
    assert cautions(study, "good", "base") == (told,)
