"""plan.json and tuning.json: read as written; what does not fit is named."""

import json

import pytest

from record.contest import Ledger, PendingRun, PlanFile, contest_and_role, group
from record.runlog import RecordError

RUN = {"id": "adamw-cosine-s1-0791d11f", "arm": "cosine", "role": "report", "seed": 1,
       "data_seed": 1, "trial": {"optimizer.lr": 1e-3, "optimizer.betas": [0.9, 0.95]},
       "length": None, "after": None, "directory": "adamw-cosine-s1-0791d11f",
       "arguments": ["configs/quickstart.toml", "--seed", "1"]}  # fmt: skip
PLAN = {"contest": "small", "baseline": "cosine", "target": 3.28, "arms": ["cosine", "wsd"],
        "runs": [RUN], "pending": [{"arm": "wsd", "seed": 1}], "problems": []}  # fmt: skip
TRIAL = {"setting": {"optimizer.lr": 1e-3}, "runs": ["a", "b"], "loss": None,
         "status": "diverged", "default": True, "candidate": True}  # fmt: skip
ARM = {"trials": [TRIAL], "best": None, "best_loss": None, "edges": [],
       "default": {"optimizer.lr": 1e-3}, "default_loss": None, "gap": None}  # fmt: skip
LEDGER = {"contest": "small", "method": "grid", "sampler": None, "trials_per_arm": 1,
          "seeds": [101], "arms": {"cosine": ARM}}  # fmt: skip


def assert_keeps(new, old):
    """Every value of `old` is in `new`, which may have more keys at any depth."""
    if isinstance(old, dict):
        for key, value in old.items():
            assert_keeps(new[key], value)
    elif isinstance(old, list):
        for a, b in zip(new, old, strict=True):
            assert_keeps(a, b)
    else:
        assert new == old


@pytest.mark.parametrize(("model", "table"), [(PlanFile, PLAN), (Ledger, LEDGER)])
def test_file_read_and_written_again_keeps_every_value(tmp_path, model, table):
    """Keys that an older file lacks are written with their defaults, after those it has."""
    path = tmp_path / model.file_name
    path.write_text(json.dumps(table))
    model.read(tmp_path).write(tmp_path)
    once = path.read_bytes()
    assert_keeps(json.loads(once), table)
    model.read(tmp_path).write(tmp_path)
    assert path.read_bytes() == once


def test_values_have_types(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps(PLAN))
    plan = PlanFile.read(tmp_path)
    assert plan.runs[0].trial == RUN["trial"]
    assert plan.pending == (PendingRun(arm="wsd", seed=1),)


def test_folder_without_the_file_gives_none(tmp_path):
    assert PlanFile.read(tmp_path) is None
    assert Ledger.read(tmp_path / "absent") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "Invalid JSON"),
        ("[]", "object"),
        (json.dumps(PLAN | {"runs": [RUN | {"role": "dress rehearsal"}]}), r"runs\.0\.role"),
        (json.dumps({k: v for k, v in PLAN.items() if k != "baseline"}), "baseline"),
        (json.dumps(PLAN | {"colour": "red"}), "colour"),
    ],
)
def test_file_that_does_not_fit_is_one_line_that_names_the_key(tmp_path, text, said):
    (tmp_path / "plan.json").write_text(text)
    with pytest.raises(RecordError, match=said) as caught:
        PlanFile.read(tmp_path)
    assert str(tmp_path / "plan.json") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("role", ["report", "tuning", "trunk"])
def test_group_of_wandb_tells_contest_and_role(role):
    assert contest_and_role(group("small", role)) == ("small", role)
