"""A search in place of a grid: optuna proposes the settings of one arm."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from contest.file import Arm, Setting
from contest.rounds import Ranges
from contest.schema import Search
from record.contest import TrialStatus

Status = Callable[[Setting], tuple[TrialStatus, float]]  # of a trial, and its loss


class Study:
    """One arm's search: an optuna study in the contest's journal, optuna.log.

    The journal is the memory: it holds the setting of every trial that was begun, whatever process
    dies.
    """

    def __init__(self, search: Search, arm: Arm, home: Path) -> None:
        self.search, self.arm, self.journal = search, arm, home / "optuna.log"

    def settings(self, status: Status, ask: int, further: Sequence[Ranges] = ()) -> list[Setting]:
        """Settings of all trials begun; tells optuna which have ended, and asks for new ones.

        ask: how many may be open at once; 0 changes nothing. further: the ranges of each trial
        after the search's own.
        """
        if not ask and not self.journal.exists():
            return []
        study = self._open(0)
        open_trials = 0
        for old in study.trials:
            now, loss = status(dict(old.params))
            open_trials += now == "missing"
            if now != "missing" and not old.state.is_finished() and ask:
                if now == "failed":  # it uses up a trial, but says nothing about the setting
                    study.tell(old.number, state=_optuna().trial.TrialState.FAIL)
                else:
                    study.tell(old.number, loss)
        begun = len(study.trials)
        every = self.search.trials + len(further)
        for number in range(begun, min(every, begun + max(0, ask - open_trials))):
            beyond = number - self.search.trials
            ranges = self.arm.ranges if beyond < 0 else further[beyond]
            self._open(number).ask(_distributions(ranges))
        return [dict(trial.params) for trial in study.get_trials()]

    def _open(self, number: int) -> Any:
        """The study, with a sampler for its trial `number`.

        A sampler's random state is not in the journal. So each trial has its own seed, or a second
        planner would propose the first one's settings again. (qmc keeps its place itself.)
        """
        optuna, search = _optuna(), self.search
        seed = search.seed + number
        samplers = {
            "tpe": lambda: optuna.samplers.TPESampler(
                n_startup_trials=max(2, search.trials // 3), constant_liar=True, seed=seed
            ),
            "random": lambda: optuna.samplers.RandomSampler(seed),
            "qmc": lambda: optuna.samplers.QMCSampler(seed=search.seed, scramble=True),
            "cmaes": lambda: optuna.samplers.CmaEsSampler(seed=seed),
        }
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        journal = optuna.storages.journal
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # optuna calls some of these experimental
            return optuna.create_study(
                storage=optuna.storages.JournalStorage(
                    journal.JournalFileBackend(str(self.journal))
                ),
                study_name=self.arm.name,
                sampler=samplers[search.sampler](),
                load_if_exists=True,
            )


def _distributions(ranges: Ranges) -> dict[str, Any]:
    """Ranges in optuna's classes."""
    kinds = _optuna().distributions
    return {
        key: kinds.IntDistribution(r.low, r.high, r.log)
        if isinstance(r.low, int) and isinstance(r.high, int)
        else kinds.FloatDistribution(r.low, r.high, r.log)
        for key, r in ranges.items()
    }


def _optuna() -> Any:
    """The package, quiet; imported only if a contest searches."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    return optuna
