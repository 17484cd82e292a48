"""What a run records of HellaSwag: the share of right answers, acc_norm, with its interval."""

from __future__ import annotations

from typing import Any

NAME = "hellaswag"


def numbers(right: Any, average: str = "") -> dict[str, float]:
    """For a line of metrics.jsonl: acc_norm, the ends of its 95 % interval, and the questions.

    right: 1 for each question that was answered rightly, else 0; (questions,).
    average: "_<name>" of averaged weights, which ends the names.
    """
    accuracy, questions = float(right.double().mean()), len(right)
    low, high = interval(accuracy, questions)
    values = {"acc_norm": accuracy, "low": low, "high": high}
    named = {f"{NAME}/{key}{average}": value for key, value in values.items()}
    return {**named, f"{NAME}/questions": questions}


def interval(accuracy: float, questions: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share: what other questions of the kind would show."""
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(accuracy * questions, questions, method="wilson")
    return float(low), float(high)


def words(values: dict[str, Any], prefix: str = f"{NAME}/") -> str:
    """For people: accuracy, interval and questions of `values`, whose names begin with `prefix`."""
    accuracy, low, high = (values[f"{prefix}{key}"] for key in ("acc_norm", "low", "high"))
    return (
        f"{accuracy:.4f} (95 % interval {low:.4f} to {high:.4f}, "
        f"{values[f'{prefix}questions']:,} questions)"
    )
