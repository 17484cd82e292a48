"""Expected numbers: compared seed by seed, as tightly as the machine allows."""

import pytest

from contest.expected import EXIT, main
from contest.plan import make
from record.runlog import encode
from tests.contest import tiny

LOSSES = {("cosine", 1): 2.0, ("wsd", 1): 3.0, ("cosine", 2): 2.2, ("wsd", 2): 3.2}
HERE = {"cpu": "A", "python": "3.11.7", "versions": {"torch": "2.13.0"}, "threads": 1}


@pytest.fixture
def plan(shards, tmp_path):
    arms = {"cosine": {}, "wsd": {"schedule.name": "wsd"}}
    made = make(tiny.parse(shards, arms), tmp_path)
    made.write()
    return made


def ended(plan, *, add=0.0, text="b", weights="w", **environment):
    """All runs end: cosine `add` above LOSSES with its first seed."""
    for job in plan.jobs:
        tiny.ended(job, LOSSES[job.arm, job.seed] + add * (job.arm == "cosine" and job.seed == 1))
        hashes = {"batches": f"{text}{job.seed}", "weights": f"{weights}{job.seed}"}
        record = {"hashes": hashes, "launches": [{"environment": HERE | environment}]}
        (job.directory / "record.json").write_bytes(encode(record))


def call(plan, *words):
    return main([str(plan.home), str(plan.home / "expected.toml"), *words])


@pytest.mark.parametrize(
    ("add", "environment", "found"),
    [
        (0.0, {}, "equal"),
        (9e-7, {}, "equal"),
        (2e-6, {}, "off"),  # the same machine: the same digits
        (-2e-6, {}, "off"),
        (0.03, {"cpu": "B"}, "equal"),  # .015 in the mean of two seeds
        (0.05, {"cpu": "B"}, "off"),
        (-0.05, {"cpu": "B"}, "off"),
        (0.03, {"threads": 2}, "equal"),
        (0.03, {"versions": {"torch": "2.14.0"}}, "equal"),
        (9.0, {"text": "another"}, "not comparable"),
        (9.0, {"weights": "others"}, "not comparable"),
    ],
)
def test_a_difference_counts_by_what_the_machine_and_the_text_allow(
    plan, capsys, add, environment, found
):
    ended(plan)
    assert call(plan, "--write") == 0
    ended(plan, add=add, **environment)
    assert call(plan) == EXIT[found]
    said = capsys.readouterr().out
    assert ("OFF  cosine" in said) == (found == "off")
    assert ("not comparable" in said) == (found == "not comparable")
    assert "OFF  wsd" not in said


def test_an_unfinished_contest_and_one_of_two_machines_are_one_line(plan, capsys):
    assert call(plan, "--write") == 2
    assert "has not finished" in capsys.readouterr().err
    ended(plan)
    record = {"hashes": {"batches": "b", "weights": "w"}}
    record["launches"] = [{"environment": HERE | {"cpu": "B"}}]
    (plan.jobs[0].directory / "record.json").write_bytes(encode(record))
    assert call(plan, "--write") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "come from different machines" in line


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("these are no numbers", "is not TOML"),
        ('contest = "tiny"\n', "tolerance: Field required"),
        ("[arms.cosine]\nmean = 2.0\n", "Field required"),  # of an earlier version
    ],
)
def test_file_without_expected_numbers_is_one_line_and_exit_code_2(plan, capsys, text, said):
    ended(plan)
    (plan.home / "expected.toml").write_text(text)
    assert call(plan) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: {plan.home / 'expected.toml'}")
    assert said in line
    assert "--write" in line


def test_an_arm_or_a_seed_that_is_lacking_is_named(plan, capsys):
    ended(plan)
    assert call(plan, "--write") == 0
    file = plan.home / "expected.toml"
    text = file.read_text()
    file.write_text(text.replace("[arms.wsd.2]", "[arms.wsd.7]"))
    assert call(plan) == 2
    file.write_text(text.replace("[arms.wsd.", "[arms.other."))
    assert call(plan) == 2
    first, second = capsys.readouterr().err.splitlines()
    assert "arm 'wsd' has no run with seed 7" in first
    assert "no arm 'other'" in second
