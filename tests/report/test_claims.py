"""Claims: what agrees and what disagrees, on contests whose answer is known."""

import pytest

from contest import file as contests
from report import claims
from report.judgement import judge
from report.run import ReportError
from tests.jobs import ROOT
from tests.report.studies import FIVE, a_study, changed
from tests.report.test_horizons import of, study

SHIPPED = ROOT / "docs/results/claims.toml"
CONTESTS = ROOT / "configs/contest"
DIFFERENT = {**FIVE, "twin": {1: 3.3001, 2: 3.3102, 3: 3.2900}}


@pytest.fixture
def verdict(monkeypatch, tmp_path):
    """The verdict on a claim about a study in memory."""

    def ask(data, **claim):
        monkeypatch.setattr(claims, "published", lambda folder, base=None: (data, judge(data)))
        table = {"claim": "x", "source": "y", "contest": str(tmp_path), **claim}
        table["arms"] = list(table["arms"])
        found, said = claims._answer(claims.Claim.model_validate(table))
        assert found
        return said

    return ask


@pytest.mark.parametrize(
    ("ask", "arms", "expected"),
    [
        ("better", ("good",), "agrees"),
        ("better", ("bad",), "disagrees"),
        ("better", ("twin",), "disagrees"),  # equivalent
        ("better", ("same",), "undecided"),
        ("as good", ("good",), "agrees"),
        ("as good", ("twin",), "agrees"),
        ("as good", ("bad",), "disagrees"),
        ("as good", ("same",), "undecided"),
        ("better", ("good", "same"), "undecided"),
        ("better", ("good", "bad", "same"), "disagrees"),
    ],
)
def test_difference_agrees_by_the_call_of_every_arm(verdict, ask, arms, expected):
    assert verdict(a_study(DIFFERENT), ask=ask, arms=arms, against="base") == expected


@pytest.mark.parametrize(
    ("arms", "expected"),
    [(("good",), "agrees"), (("bad",), "disagrees"), (("good", "base"), "undecided")],
)
def test_first_places_are_those_of_the_ranks(verdict, arms, expected):
    assert verdict(a_study(DIFFERENT), ask="first", arms=arms) == expected


@pytest.mark.parametrize(
    ("true", "factor", "expected"),
    [
        (1.4, 1.3, "agrees"),
        (1.2, 1.3, "disagrees"),
        (0.8, 1.3, "disagrees"),
        (0.05, 1.3, "disagrees"),
        (20.0, 1.3, "agrees"),
        (20.0, 9.0, "undecided"),
    ],
)
def test_speedup_is_held_against_the_claimed_factor(verdict, true, factor, expected):
    losses = {"base": of(1), "arm": lambda d, s: of(true * (1 + (s - 3) / 1000))(d, s)}
    data = study((32, 64, 128, 256), losses, seeds=(1, 2, 3, 4, 5))
    asked = {"ask": "speedup", "arms": ("arm",), "against": "base", "factor": factor}
    assert verdict(data, **asked) == expected


def test_speedup_whose_seeds_lie_on_both_sides_is_undecided(verdict):
    losses = {"base": of(1), "arm": lambda d, s: of(1.15 + s / 20)(d, s)}  # 1.2 to 1.4
    asked = {"ask": "speedup", "arms": ("arm",), "against": "base", "factor": 1.3}
    data = study((32, 64, 128), losses, seeds=(1, 2, 3, 4, 5))
    assert verdict(data, **asked) == "undecided"


@pytest.mark.parametrize(("true", "factor"), [(1.5, 1.3), (1.5, 2.0), (20.0, 1.3), (0.05, 1.3)])
def test_speedup_of_fewer_than_five_seeds_is_undecided(verdict, true, factor):
    losses = {"base": of(1), "arm": lambda d, s: of(true * (1 + s / 100))(d, s)}
    asked = {"ask": "speedup", "arms": ("arm",), "against": "base", "factor": factor}
    data = study((32, 64, 128), losses, seeds=(1, 2, 3, 4))
    assert verdict(data, **asked) == "undecided"


@pytest.mark.parametrize(
    ("times", "expected"),
    [((9.0, 9.1), "agrees"), ((11.0, 10.5), "disagrees"), ((9.0, 11.0), "undecided")],
)
def test_faster_updates_are_faster_in_every_round(verdict, times, expected):
    data = a_study(FIVE, step_ms={"good": times, "base": (10.0, 10.0)})
    assert verdict(data, ask="faster update", arms=("good",), against="base") == expected


def test_arm_that_diverged_is_not_as_good(verdict):
    data = changed(a_study(FIVE), "same", 2, status="diverged")
    assert verdict(data, ask="as good", arms=("same",), against="base") == "disagrees"


def test_arm_that_diverged_is_not_first(verdict):
    data = changed(a_study(DIFFERENT), "good", 2, status="diverged")
    assert verdict(data, ask="first", arms=("good",)) == "disagrees"


@pytest.mark.parametrize(("arm", "against"), [("god", "base"), ("good", "bass")])
def test_arm_of_a_timing_that_the_contest_does_not_have_is_an_error(verdict, arm, against):
    with pytest.raises(ReportError, match=r"has no arm '(god|bass)'; it has base"):
        verdict(a_study(FIVE), ask="faster update", arms=(arm,), against=against)


def test_verdict_is_provisional_until_every_planned_run_has_ended(verdict):
    data = a_study(FIVE, pending=1)
    said = verdict(data, ask="better", arms=("good",), against="base")
    assert said == "agrees (provisional)"


def test_claims_without_a_contest_are_not_run_yet(verdict):
    said = verdict(a_study(FIVE), ask="first", arms=("good",), contest="docs/results/nowhere")
    assert said == "not run yet"


@pytest.mark.parametrize("claim", claims.read(SHIPPED), ids=lambda c: c.claim[:40])
def test_shipped_claim_names_arms_of_a_shipped_contest(claim, monkeypatch):
    monkeypatch.chdir(ROOT)
    assert claim.contest.startswith("docs/results/")
    contest = contests.read(CONTESTS / f"{claim.contest.rpartition('/')[2]}.toml")
    arms = {arm.name for arm in contest.arms}
    assert {*claim.arms, claim.against or claim.arms[0]} <= arms
    assert claim.ask != "speedup" or len(contest.table.branches.lengths) >= 3


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('ask = "best"', "ask: Input should be"),
        ('ask = "speedup"\nagainst = "base"', "`factor` belongs to ask = 'speedup'"),
        ('ask = "better"', "`against` names an arm"),
        ('ask = "first"\narms = []', "arms: List should have at least 1 item"),
        ("ask = ", "does not hold claims"),
    ],
)
def test_claim_that_does_not_fit_is_named_in_one_line(tmp_path, line, words):
    file = tmp_path / "claims.toml"
    arms = "" if "arms" in line else 'arms = ["a"]'
    file.write_text(f'[[claim]]\nclaim = "x"\nsource = "y"\ncontest = "z"\n{arms}\n{line}\n')
    with pytest.raises(ReportError, match=words) as error:
        claims.read(file)
    assert "\n" not in str(error.value)
