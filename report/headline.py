"""The verdicts in a few sentences: what to choose, how sure that is, and what is open."""

from __future__ import annotations

from collections.abc import Sequence

from report.formats import metric_words, signed
from report.leaderboard import Row
from report.ranks import Ranking
from report.verdict import Comparison

SHOWN_ARMS = 6  # in one list; more are counted
REST = {  # call: how the arms are listed that are not chosen
    "better": "also better",
    "worse": "worse",
    "equivalent": "equivalent to it",
    "undecided": "undecided",
    "diverged": "diverged",
    "no verdict": "no verdict yet",
    "refused": "cannot be compared",
}


def headline(
    baseline: str | None,
    rows: Sequence[Row],
    metric: str,
    ranking: Ranking,
    *,
    smallest: float = 0.0,
    provisional: str = "",
) -> str:
    """What a reader in a hurry should know.

    rows: best mean first. metric: one of METRICS. smallest, provisional: as in `Judgement`.
    """
    name = metric_words(metric)
    if baseline is None or len(rows) < 2:
        only = rows[0] if rows else None
        tail = f": {name} {only.mean:.4f}, n = {only.n}" if only and only.mean is not None else ""
        return f"No verdict: one arm, nothing to compare it with{tail}."
    groups: dict[str, list[tuple[Row, Comparison]]] = {}
    for row in rows:
        if c := row.comparison:
            groups.setdefault(c.baseline, []).append((row, c))
    said = [f"Provisional: {provisional}."] if provisional else []
    for base, group in groups.items():
        chosen = _chosen(group)
        said.append(_choice(base, chosen, group, metric, ranking))
        said += [_rest([pair for pair in group if pair not in chosen], smallest)]
    return " ".join(filter(None, said))


def _chosen(group: Sequence[tuple[Row, Comparison]]) -> list[tuple[Row, Comparison]]:
    """The arms shown better than the baseline; of these, the ones that may be the best of all."""
    better = [(row, c) for row, c in group if c.call == "better"]
    return [(row, c) for row, c in better if row.ranks and row.ranks[0] == 1] or better


def _choice(
    base: str,
    chosen: Sequence[tuple[Row, Comparison]],
    group: Sequence[tuple[Row, Comparison]],
    metric: str,
    ranking: Ranking,
) -> str:
    """The first sentence."""
    name = metric_words(metric)
    if not any(c.tested for _, c in group):
        return f"No verdict against {base} in {name}."
    if not chosen:
        return f"No arm is shown better than {base} in {name}."
    arms = [row.arm for row, _ in chosen]
    shown = f"shown better than {base} in {name} by {_gain(chosen)}"
    if all(row.ranks and row.ranks[0] == 1 for row, _ in chosen):
        choice = f"Choose {_listed(arms, 'or')}: {shown}"
    else:  # an arm with another baseline may be better still
        choice = f"{_listed(arms, 'and')} {'are' if len(arms) > 1 else 'is'} {shown}"
    choice += " nats" if metric.endswith("_loss") else ""
    if len(arms) > 1:
        those = "the two" if len(arms) == 2 else f"all {len(arms)}"
        equal = ranking.all_equivalent(arms)
        choice += f"; {those} are equivalent" if equal else "; which of them is best is undecided"
    edges = dict.fromkeys(f"{row.arm}: {', '.join(c.edges)}" for row, c in chosen if c.edges)
    choice += f"; tuned settings at the edge of their grid ({'; '.join(edges)})" if edges else ""
    return f"{choice}."


def _gain(chosen: Sequence[tuple[Row, Comparison]]) -> str:
    """The range of the joint intervals, as a gain."""
    least = min(-c.joint_high for _, c in chosen if c.joint_high is not None)
    most = max(-c.joint_low for _, c in chosen if c.joint_low is not None)
    return f"{least:.2g} to {most:.2g}" if least > 0 else f"up to {most:.2g}"


def _rest(group: Sequence[tuple[Row, Comparison]], smallest: float) -> str:
    """All other arms, by their calls."""
    parts = []
    for call, words in REST.items():
        arms = [_sized(row, c) for row, c in group if c.call == call]
        within = f" within {smallest:g}" if call == "equivalent" else ""
        parts += [f"{words}{within}: {_listed(arms, 'and')}"] if arms else []
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def _sized(row: Row, c: Comparison) -> str:
    """An arm; where it is better or worse, with the difference."""
    known = c.call in ("better", "worse") and c.difference is not None
    remarks = [signed(c.difference)] if known else []
    remarks += ["at the edge of its grid"] if known and c.edges else []
    return f"{row.arm} ({', '.join(remarks)})" if remarks else row.arm


def _listed(names: Sequence[str], last: str) -> str:
    """ "a, b and c"; long lists are cut and counted."""
    more = [f"{len(names) - SHOWN_ARMS} more"] if len(names) > SHOWN_ARMS else []
    shown = [*names[:SHOWN_ARMS], *more]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} {last} {shown[-1]}"
