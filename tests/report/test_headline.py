"""The sentences for a reader in a hurry."""

from dataclasses import replace

from report.headline import headline
from report.judgement import judge
from report.leaderboard import row
from report.ranks import Ranking
from report.verdict import Comparison
from tests.report.studies import BASE, FIVE, a_study

NO_PAIRS = Ranking({}, frozenset())


def lines(**arms):
    """Rows with nothing but a name, a comparison and a rank: {arm: (call, low, high, rank)}."""
    empty = row(a_study(FIVE), "base", {(1, 1): 3.0, (2, 2): 3.1}, None, None)
    found = [replace(empty, arm="base")]
    for arm, (call, *numbers) in arms.items():
        low, high, rank = numbers or (None, None, None)
        middle = (low + high) / 2 if numbers else None
        c = Comparison("base", call, difference=middle, joint_low=low, joint_high=high,
                       p=0.01 if numbers else None)  # fmt: skip
        found.append(replace(empty, arm=arm, comparison=c, ranks=rank and (rank, 9)))
    return found


def said(rows, metric="final_val_loss", ranking=NO_PAIRS, **options):
    return headline("base", rows, metric, ranking, **options)


def test_the_best_of_the_better_arms_are_to_be_chosen_and_the_gain_is_their_joint_interval():
    rows = lines(
        a=("better", -0.04, -0.025, 1),
        b=("better", -0.035, -0.02, 1),
        c=("better", -0.02, -0.004, 3),
        d=("worse", 0.2, 0.3, 5),
        e=("undecided", -0.1, 0.1, 1),
        f=("equivalent", -0.004, 0.004, 3),
    )
    same = Ranking({}, frozenset({("b", "a")}))
    rest = "Also better: c (−0.0120); worse: d (+0.2500); equivalent to it within 0.005: f; "
    rest += "undecided: e."
    start = "Choose a or b: shown better than base in final val loss by 0.02 to 0.04 nats"
    assert said(rows, ranking=same, smallest=0.005) == f"{start}; the two are equivalent. {rest}"
    assert said(rows, smallest=0.005) == f"{start}; which of them is best is undecided. {rest}"


def test_a_gain_that_only_a_later_step_shows_has_no_lower_end():
    rows = lines(a=("better", -0.04, 0.0, 1))
    assert said(rows, "step_ms_median") == (
        "Choose a: shown better than base in step ms median by up to 0.04."
    )


def test_an_edge_of_the_grid_is_said_with_the_choice_and_with_what_is_worse():
    rows = lines(a=("better", -0.04, -0.02, 1), d=("worse", 0.2, 0.3, 5))
    edged = [replace(r, comparison=replace(r.comparison, edges=("optimizer.lr",)))
             if r.comparison else r for r in rows]  # fmt: skip
    assert said(edged) == (
        "Choose a: shown better than base in final val loss by 0.02 to 0.04 nats; tuned settings "
        "at the edge of their grid (a: optimizer.lr). Worse: d (+0.2500, at the edge of its grid)."
    )


def test_without_a_better_arm_nothing_is_recommended():
    rows = lines(**{f"arm{i}": ("undecided", -1, 1, 1) for i in range(7)})
    assert said(rows, "avg_loss", provisional="2 of 9 planned runs have not ended") == (
        "Provisional: 2 of 9 planned runs have not ended. No arm is shown better than base in avg "
        "loss. Undecided: arm0, arm1, arm2, arm3, arm4, arm5 and 1 more."
    )
    assert "arm4 and arm5." in said(rows[:-1])


def test_arms_that_were_not_tested_are_named_with_what_became_of_them():
    rows = lines(x=("diverged",), y=("no verdict",), z=("refused",))
    assert said(rows) == (
        "No verdict against base in final val loss. Diverged: x; no verdict yet: y; cannot be "
        "compared: z."
    )


def test_each_baseline_has_its_sentence():
    rows = lines(a=("better", -0.04, -0.02, 1), b=("undecided", -1, 1, 1))
    other = [replace(r, comparison=replace(r.comparison, baseline="b2")) if r.arm == "b" else r
             for r in rows]  # fmt: skip
    assert said(other).endswith(" No arm is shown better than b2 in final val loss. Undecided: b.")


def test_without_anything_to_compare():
    (only,) = judge(a_study({"base": BASE}, baseline=None)).rows
    end = "nothing to compare it with"
    assert headline(None, [only], "final_val_loss", NO_PAIRS) == (
        f"No verdict: one arm, {end}: final val loss 3.3000, n = 3."
    )
    assert said([only]).startswith(f"No verdict: one arm, {end}: ")
    unknown = [replace(only, mean=None)]
    assert headline(None, unknown, "avg_loss", NO_PAIRS) == f"No verdict: one arm, {end}."
    assert headline(None, [], "avg_loss", NO_PAIRS) == f"No verdict: one arm, {end}."


def test_a_real_judgement_says_what_to_choose():
    close = {seed: loss + gap for (seed, loss), gap in zip(FIVE["good"].items(), (1e-4, 0, -1e-4),
                                                           strict=True)}  # fmt: skip
    said = judge(a_study({**FIVE, "near": close})).headline
    assert said.startswith("Choose good or near: shown better than base in final val loss by 0.0")
    assert "; the two are equivalent. Worse: bad (" in said


def test_an_arm_that_beats_only_its_own_baseline_is_not_the_one_to_choose():
    """`against`: lion_hot is better than lion, and base is better than both."""
    rows = lines(lion=("worse", 0.2, 0.3, 3), lion_hot=("better", -0.08, -0.04, 2))
    own = [replace(r, comparison=replace(r.comparison, baseline="lion"))
           if r.arm == "lion_hot" else r for r in rows]  # fmt: skip
    text = said(own)
    assert "Choose" not in text
    assert "lion_hot is shown better than lion in final val loss by 0.04 to 0.08 nats." in text
