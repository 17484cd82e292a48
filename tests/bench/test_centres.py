"""Grids of a contest around what an earlier one chose."""

import tomllib

import pytest

from bench import centres
from record.contest import Ledger, LedgerTrial, TunedArm

FILE = """
[[arm]]
name = "adamw"
[arm.tune]
"optimizer.lr" = [3e-4, 6e-4, 1.2e-3] # preset: 6e-4
"optimizer.weight_decay" = [0.05, 0.2]

[[arm]]
name = "adamw-ema" # a wrapper
"optimizer.lr" = [1.0, 2.0, 4.0, 8.0] # preset: 2.83

[[arm]]
name = "lion"
"optimizer.lr" = [1e-4, 3e-4, 9e-4] # preset: 3e-4

[[arm]]
name = "sgd"
"optimizer.lr" = [0.1, 0.3, 0.9] # preset: 0.3
"""


def tuned(lr, edges=(), status="finished"):
    trial = LedgerTrial(
        setting={"optimizer.lr": lr}, runs=("x",), loss=2.0, status=status, default=False,
        candidate=True,
    )  # fmt: skip
    return TunedArm(
        trials=(trial,), best={"optimizer.lr": lr}, best_loss=2.0, edges=edges, default={},
        default_loss=None, gap=None,
    )  # fmt: skip


def ledger(**arms):
    return Ledger(
        contest="pilot", method="grid", sampler=None, trials_per_arm=1, seeds=(1,), arms=arms
    )


@pytest.fixture
def moved():
    edge = ("optimizer.lr",)
    arms = {"adamw": tuned(1.8e-3), "lion": tuned(9e-4, edge), "sgd": tuned(0.1, status="missing")}
    text, said = centres.centred(FILE, ledger(**arms))
    return {arm["name"]: arm for arm in tomllib.loads(text)["arm"]}, text, said


def test_grid_has_its_factor_and_the_chosen_centre(moved):
    arms, text, _ = moved
    assert arms["adamw"]["tune"]["optimizer.lr"] == pytest.approx([9e-4, 1.8e-3, 3.6e-3])
    assert arms["adamw"]["tune"]["optimizer.weight_decay"] == [0.05, 0.2]
    assert "# pilot: 0.0018\n" in text


def test_wrapper_has_the_centre_of_its_optimizer_between_two_values_of_an_even_grid(moved):
    low, _, _, high = moved[0]["adamw-ema"]["optimizer.lr"]
    assert (low * high) ** 0.5 == pytest.approx(1.8e-3, rel=1e-3)
    assert high / low == pytest.approx(8, rel=1e-3)


def test_edge_is_said_and_an_unfinished_arm_stays(moved):
    arms, text, said = moved
    assert "# pilot: 0.0009, at an edge there" in text
    assert arms["sgd"]["optimizer.lr"] == [0.1, 0.3, 0.9]
    assert "sgd: 1 trial not run yet" in said


def test_a_second_time_changes_nothing(moved):
    _, text, _ = moved
    again, _ = centres.centred(text, ledger(adamw=tuned(1.8e-3)))
    assert again == text


def test_grid_of_one_value_has_the_chosen_one():
    text, _ = centres.centred(
        FILE.replace("[3e-4, 6e-4, 1.2e-3]", "[6e-4]"), ledger(adamw=tuned(1.8e-3))
    )
    assert tomllib.loads(text)["arm"][0]["tune"]["optimizer.lr"] == [1.8e-3]


@pytest.mark.parametrize("lacking", ["damaged ledger", "ledger", "contest"])
def test_what_is_not_there_is_one_line(tmp_path, lacking):
    if lacking != "contest":
        (tmp_path / "c.toml").write_text(FILE)
    if lacking == "contest":
        ledger().write(tmp_path)
    if lacking == "damaged ledger":
        (tmp_path / Ledger.file_name).write_text("{}")
    with pytest.raises(SystemExit, match=r"^error: ") as stopped:
        centres.main([str(tmp_path), str(tmp_path / "c.toml")])
    assert "\n" not in str(stopped.value)
