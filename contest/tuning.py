"""Tuning: the same number of trials for every arm, all of them in a ledger (tuning.json).

A trial is one setting, run with every tuning seed. Its loss is the mean of their final validation
losses, infinite if one of them diverged. No trial is ended early: the loss at 30 % of a run says
little about its end. If a grid does not hold the arm's own, untuned setting, that setting is run
beside the grid, so that the ledger shows what tuning has gained; it is not a candidate then.

After the grid or the search, rounds of one further trial for every arm follow while an arm's best
lies at an edge (contest/rounds.py). Then settings that are about as good as the best one are run
with the tie seeds. All of it follows from the contest file and the losses on disk.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from configs import ConfigError
from configs.loading import flat
from contest import rounds
from contest.attempts import Attempts
from contest.file import Arm, Contest, Setting
from contest.job import Job, build, resolved
from contest.schema import Range
from contest.search import Study
from contest.trials import Trial, Tuned
from record.contest import Ledger, TrialStatus, pair_std


def tune(contest: Contest, home: Path, past: Attempts, ask: int) -> dict[str, Tuned]:
    """How the tuning of each arm stands.

    ask: with a search, new trials are begun while an arm has fewer than this many open.

    Raises:
        ConfigError: an arm does not have a key that is tuned.
    """
    return _Tuning(contest, home, past, ask).arms()


@dataclass
class _Tuning:
    """Finds the trials of all arms, in the order in which they follow from each other."""

    contest: Contest
    home: Path
    past: Attempts
    ask: int

    def arms(self) -> dict[str, Tuned]:
        """Grid or search, then rounds, then ties; as far as the runs have come."""
        found = [self._begun(arm) for arm in self.contest.arms]
        for number in range(1, self.contest.extend + 1):
            if not all(tuned.complete for tuned in found) or not self._round(found, number):
                break
        if all(tuned.complete for tuned in found):
            self._ties(found)
        alone = not self.contest.extend and not self.contest.table.tie_seeds
        every = all(tuned.complete for tuned in found)
        for tuned in found:
            tuned.settled = tuned.complete and (alone or every)
        return {tuned.arm.name: tuned for tuned in found}

    def _begun(self, arm: Arm) -> Tuned:
        """The arm's trials of the grid or the search, and its untuned setting."""
        default = own_setting(self.contest, arm)
        tuned = Tuned(arm, default, [], self.contest.trials)
        for setting in self._searched(tuned) if arm.ranges else arm.settings():
            tuned.trials.append(self._trial(tuned, setting))
        if not any(trial.default for trial in tuned.trials):
            tuned.trials.append(self._trial(tuned, default, candidate=False))
        return tuned

    def _searched(self, tuned: Tuned) -> list[Setting]:
        """The settings that optuna has proposed for an arm, up to the round that is looked at."""
        search = self.contest.table.search
        assert search
        study = Study(search, tuned.arm, self.home)

        def status(setting: Setting) -> tuple[TrialStatus, float]:
            trial = self._trial(tuned, setting)
            return trial.status, trial.loss

        return study.settings(status, self.ask, tuned.further)[: tuned.budget]

    def _trial(
        self, tuned: Tuned, setting: Setting, number: int = 0, candidate: bool = True
    ) -> Trial:
        """A setting with the tuning seeds, as it stands. number: of its round."""
        seeds = self.contest.table.tuning_seeds
        jobs = [self._job(tuned.arm, seed, setting) for seed in seeds]
        default = setting == tuned.default
        return Trial(setting, jobs, default, candidate, number, len(seeds)).look(self.past)

    def _job(self, arm: Arm, seed: int, setting: Setting) -> Job:
        """A tuning run."""
        return build(self.contest, self.home, arm, (seed, seed), "tuning", setting)

    # ------------------------------------------------------------------------------------- rounds

    def _round(self, arms: Sequence[Tuned], number: int) -> bool:
        """Give every arm that has a best setting one further trial, if one is at an edge.

        Returns whether it did. An edge beyond which the trainer takes no value asks for no round.
        """
        arms = [tuned for tuned in arms if tuned.ranking]
        if self.contest.table.search:
            return self._search_round(arms, number)
        outward = [self._first_new(t, rounds.outward(*_place(t))) for t in arms]
        if not any(outward):
            return False
        inward = [self._first_new(t, rounds.inward(*_place(t), number)) for t in arms]
        settings = [out or between for out, between in zip(outward, inward, strict=True)]
        if not all(settings):
            return False  # an arm has no other setting, and trials stay equal
        for tuned, setting in zip(arms, settings, strict=True):
            self._add(tuned, setting or {}, number)
        return True

    def _search_round(self, arms: Sequence[Tuned], number: int) -> bool:
        """The same with optuna: beyond the edge, or once more in the arm's ranges."""
        strips = [self._strip(tuned) for tuned in arms]
        if not any(strips):
            return False
        for tuned, strip in zip(arms, strips, strict=True):
            tuned.further.append({**tuned.ranges, **strip})
            tuned.budget += 1
            for setting in self._searched(tuned)[tuned.budget - 1 :]:
                tuned.trials.append(self._trial(tuned, setting, number))
        return True

    def _strip(self, tuned: Tuned) -> dict[str, Range]:
        """The first edge's key, and the range beyond it; {} without one."""
        best = tuned.ranking[0].setting
        for key in tuned.edges:
            strip = rounds.strip(tuned.ranges[key], best[key])
            if all(self._valid(tuned, best | {key: end}) for end in (strip.low, strip.high)):
                return {key: strip}
        return {}

    def _first_new(self, tuned: Tuned, settings: Iterable[Setting]) -> Setting | None:
        """The first setting that was not tried, and that the trainer takes."""
        known = [trial.setting for trial in tuned.candidates]
        fit = (s for s in settings if s not in known and self._valid(tuned, s))
        return next(fit, None)

    def _valid(self, tuned: Tuned, setting: Setting) -> bool:
        """Whether the trainer takes a setting."""
        try:
            self._job(tuned.arm, self.contest.table.tuning_seeds[0], setting)
        except ConfigError:
            return False
        return True

    def _add(self, tuned: Tuned, setting: Setting, number: int) -> None:
        """One further candidate; the untuned setting, run beside the grid, may become one."""
        tuned.budget += 1
        for trial in tuned.trials:
            if trial.setting == setting:
                trial.candidate, trial.round = True, number
                return
        tuned.trials.append(self._trial(tuned, setting, number))

    # --------------------------------------------------------------------------------------- ties

    def _ties(self, arms: Sequence[Tuned]) -> None:
        """Run settings about as good as an arm's best one with the tie seeds too.

        That is: within one standard deviation of the difference between two trials, pooled over
        all arms. One tuning seed tells of no deviation: the best two are run then.
        """
        table = self.contest.table
        losses = [[t.losses for t in a.trials if t.status == "finished"] for a in arms]
        std = pair_std(losses) if table.tie_seeds else None
        for tuned in arms if table.tie_seeds else ():
            good = tuned.ranking
            tied = good[: rounds.close([t.loss for t in good], std, len(table.tuning_seeds))]
            for trial in tied if len(tied) > 1 else ():
                trial.jobs += [
                    self._job(tuned.arm, seed, trial.setting) for seed in table.tie_seeds
                ]
                trial.look(self.past)


def _place(tuned: Tuned) -> tuple[rounds.Tried, Setting, list[str]]:
    """What was tried, the best of it, and the keys that can be extended."""
    return tuned.tried, tuned.ranking[0].setting, tuned.arm.numbers


def own_setting(contest: Contest, arm: Arm) -> Setting:
    """The values that the tuned keys have without tuning.

    Raises:
        ConfigError: the arm does not have such a key.
    """
    seed = contest.table.tuning_seeds[0]
    try:
        config = resolved(tuple(contest.arguments(arm, (seed, seed))))
    except ConfigError as error:
        raise ConfigError(f"arm '{arm.name}': {error}") from None
    values, tuned = flat(config.table()), arm.grid or arm.ranges
    own = {key: values.get(key, _of_role(key, values)) for key in tuned}
    for key in tuned:
        if own[key] is None:
            problem = f"arm '{arm.name}': tuned key '{key}' is none of its keys"
            raise ConfigError(f"{problem}; give the arm a tune table of its own")
    return own


def _of_role(key: str, values: Setting) -> Any:
    """What a role has that has no `key` of its own: the ratio 1, or what all parameters have."""
    table, _, name = key.rpartition(".")
    if not table.startswith("optimizer.roles."):
        return None
    return 1.0 if name == "lr_ratio" else values.get(f"optimizer.{name}")


def most_to_come(contest: Contest, tuned: Mapping[str, Tuned]) -> dict[str, int]:
    """Tuning runs that may still join the plan, at most, by their reason in words."""
    table, arms = contest.table, list(tuned.values())
    if all(arm.settled for arm in arms):
        return {}
    begun = max((trial.round for arm in arms for trial in arm.candidates), default=0)
    unknown = sum(arm.budget - len(arm.candidates) for arm in arms)
    rounds_left = (contest.extend - begun) * len(arms)
    close = 2 if len(table.tuning_seeds) == 1 else contest.trials + contest.extend
    if any(trial.tied for arm in arms for trial in arm.candidates):
        close = 0  # all of them are in the plan
    found = {
        "trials that the search has not proposed yet": unknown * len(table.tuning_seeds),
        "further trials, if a best lies at an edge": rounds_left * len(table.tuning_seeds),
        "more seeds for trials that are close": len(arms) * close * len(table.tie_seeds),
    }
    return {reason: runs for reason, runs in found.items() if runs}


def ledger(contest: Contest, tuned: Mapping[str, Tuned]) -> Ledger:
    """tuning.json."""
    search = contest.table.search
    number = max((t.round for arm in tuned.values() for t in arm.candidates), default=0)
    return Ledger(
        contest=contest.name,
        method="optuna" if search else "grid",
        sampler=search.sampler if search else None,
        trials_per_arm=contest.trials + number,
        seeds=contest.table.tuning_seeds,
        arms={name: arm.row() for name, arm in tuned.items()},
        tie_seeds=contest.table.tie_seeds,
        extend=contest.extend,
        rounds=number,
    )
