"""Which held-out text decides, and what a difference owes to that text."""

from __future__ import annotations

from report.study import Study


def judged(study: Study) -> tuple[str, str]:
    """The loss that decides, and why if it is not the test loss.

    It is the test loss where every run that ended well has one: val has chosen the settings.
    """
    ended = [
        run
        for run in study.runs
        if run.role == "report" and run.status == "finished" and not run.diverged
    ]
    lacking = sum(run.summary.get("final_test_loss") is None for run in ended)
    if ended and not lacking:
        return "final_test_loss", ""
    if not ended:
        return "final_val_loss", ""
    who = "no run has a" if lacking == len(ended) else f"{lacking} of {len(ended)} runs have no"
    why = f"{who} test loss (data without a test split, or a run of an older version)"
    tuned = ", which also chose the settings" if study.tuning else ""
    return "final_val_loss", f"Judged on the validation text{tuned}: {why}."
