"""An optimizer or a schedule from elsewhere, by its dotted path: import it, check it, use it."""

from __future__ import annotations

import functools
import hashlib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

from configs.validation import ConfigError, first_line, nearest
from optim.core.base import Optimizer
from optim.core.hyperparameters import schema


def imported_class(path: str) -> type[torch.optim.Optimizer]:
    """The torch-style optimizer class at `path`, such as "torch.optim.Adamax".

    Raises:
        ConfigError: it cannot be imported, is not an optimizer, or takes no `lr`; one line.
    """
    cls = imported(path, "optimizer.name", _is_optimizer)
    if not _is_optimizer(cls):
        what = "a class" if inspect.isclass(cls) else f"of type {type(cls).__name__}"
        raise ConfigError(
            f"optimizer.name = '{path}' is {what}, not a subclass of torch.optim.Optimizer;"
            " name the optimizer's class"
        )
    if "lr" not in schema(cls):
        raise ConfigError(
            f"optimizer.name = '{path}': its constructor has no parameter 'lr', which the schedule"
            " scales; name a class that has one"
        )
    return cls


def imported_function(path: str) -> Callable[..., float]:
    """The schedule at `path`: a function (step, total_steps, *, ...) -> factor.

    Raises:
        ConfigError: it cannot be imported, or is no such function; one line.
    """
    function: Callable[..., float] = imported(path, "schedule.name", inspect.isfunction)
    if not inspect.isfunction(function):
        raise ConfigError(
            f"schedule.name = '{path}' is of type {type(function).__name__}, not a function;"
            " name a function `(step, total_steps, *, ...) -> factor`"
        )
    if (first := list(inspect.signature(function).parameters)[:2]) != ["step", "total_steps"]:
        raise ConfigError(
            f"schedule.name = '{path}': its first parameters are {', '.join(first) or 'none'};"
            " they should be step, total_steps"
        )
    return function


def version(path: str, key: str) -> str:
    """8 hex digits: a hash of the file that defines the class or function at `path`.

    Files that this file imports do not count.

    Raises:
        ConfigError: it cannot be imported, or there is no such file; one line. It names `key`.
    """
    try:
        source = Path(inspect.getfile(imported(path, key))).read_bytes()
    except (TypeError, OSError) as error:
        raise ConfigError(
            f"{key} = '{path}': the record needs the version of its source file, which cannot be"
            f" read ({first_line(error)}); define it in a .py file"
        ) from None
    return hashlib.sha256(source).hexdigest()[:8]


def imported(path: str, key: str, wanted: Callable[[Any], bool] = callable) -> Any:
    """What is at `path`, whatever it is; `wanted` chooses what an error offers instead.

    Raises:
        ConfigError: it cannot be imported; one line that names `key`.
    """
    module_name, _, attribute = path.rpartition(".")
    if (here := str(Path.cwd())) not in sys.path:  # absent under torchrun and `python FOLDER/...`
        sys.path.append(here)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:  # an import runs the code of others
        raise ConfigError(
            f"{key} = '{path}': cannot import '{module_name}' ({first_line(error)}); install"
            " it, start from its folder, or put that on PYTHONPATH"
        ) from error
    if not hasattr(module, attribute):
        names = [name for name, value in vars(module).items() if wanted(value)]
        raise ConfigError(
            f"{key} = '{path}': '{module_name}' has no '{attribute}'; {nearest(attribute, names)}"
        )
    return getattr(module, attribute)


def _is_optimizer(value: Any) -> bool:
    return inspect.isclass(value) and issubclass(value, torch.optim.Optimizer)


class _ForeignHooks(Optimizer):
    """The hooks for a class from elsewhere: its own `train()` and `eval()`, if it has them."""

    def train_mode(self) -> None:
        if type(self).train is not Optimizer.train:
            self.train()

    def eval_mode(self) -> None:
        if type(self).eval is not Optimizer.eval:
            self.eval()

    def __reduce_ex__(self, protocol: Any) -> Any:
        """For pickle, which would look for a class made here in the module of the original."""
        return (_unpickled, (type(self).__mro__[1],), self.__getstate__())


def _unpickled(cls: type[torch.optim.Optimizer]) -> Optimizer:
    made = with_hooks(cls)
    return made.__new__(made)


def with_hooks(cls: type[torch.optim.Optimizer]) -> type[Optimizer]:
    """`cls` itself if it has the hooks; else a subclass of the same name that has them.

    The hooks come last in the order of resolution, so a hook that `cls` defines is kept.
    """
    return cls if issubclass(cls, Optimizer) else _hooked(cls)  # type: ignore[arg-type]  # hashable


@functools.cache  # a second class would be another one for pickle
def _hooked(cls: type[torch.optim.Optimizer]) -> type[Optimizer]:
    averages = hasattr(cls, "eval")  # as schedule-free methods do
    names: dict[str, Any] = {"__module__": cls.__module__, "__doc__": cls.__doc__}
    names |= dict.fromkeys(("keeps_weights", "averages_weights"), averages)
    return type(cls.__name__, (cls, _ForeignHooks), names)


def construct(
    name: str, cls: type[Optimizer], param_groups: Iterable[Any], values: dict[str, Any]
) -> Optimizer:
    """`cls(param_groups, **values)`, without writing into the caller's groups.

    A class that refuses a group's extra keys ("names", "role") gets them after construction.

    Raises:
        ConfigError: the class refuses its arguments; one line.
    """
    groups = [_copy(group) for group in param_groups]
    try:
        return cls([_copy(group) for group in groups], **values)
    except ConfigError:  # it says what is wrong in its own words
        raise
    except Exception as error:
        refused = error
    if not issubclass(cls, _ForeignHooks):  # ours accept extra keys, and may refuse their values
        raise ConfigError(f"optimizer '{name}' cannot be built: {first_line(refused)}") from refused
    known = {"params", *schema(cls)}
    bare = [_copy(group, known) for group in groups]
    try:
        optimizer = cls(bare, **values)
    except Exception as error:
        refused = error
    else:
        if len(optimizer.param_groups) != len(groups):
            raise ConfigError(
                f"optimizer '{name}' makes {len(optimizer.param_groups)} groups of {len(groups)}"
                " and refuses extra keys in them, so their roles cannot be kept; let it accept them"
            )
        for built, given in zip(optimizer.param_groups, groups, strict=True):
            built.update({key: given[key] for key in given if key not in known})
        return optimizer
    raise ConfigError(f"optimizer '{name}' cannot be built: {first_line(refused)}") from refused


def _copy(group: Any, keys: set[str] | None = None) -> Any:
    """A group's own dict and list of parameters; only its `keys`, if given."""
    if not isinstance(group, dict):
        return group
    params = group["params"]
    whole = {**group, "params": [params] if isinstance(params, torch.Tensor) else list(params)}
    return {key: value for key, value in whole.items() if keys is None or key in keys}
