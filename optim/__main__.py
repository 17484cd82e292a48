"""`python -m optim list`, `show NAME` and `schedules`: what there is and what it looks like."""

from __future__ import annotations

import argparse
import inspect
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from configs import load
from configs.loading import DEFAULT, PRESETS
from configs.validation import ConfigError, nearest
from optim import (
    OPTIMIZERS,
    SCHEDULES,
    Schedule,
    build_schedule,
    by_role,
    listing,
    optimizer_class,
    resolve,
    schedule_function,
)
from optim.core.foreign import imported
from optim.core.hyperparameters import schema
from optim.wrappers import WRAPPERS

_COLUMNS = 6  # panels in a row of the picture


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        options.run(options)
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m optim", description=__doc__)
    commands = parser.add_subparsers(required=True)
    table = commands.add_parser("list", help="optimizers in a table, schedules with their defaults")
    table.add_argument("--markdown", action="store_true", help="the table of docs/optimizers.md")
    table.set_defaults(run=_list)
    showing = commands.add_parser(
        "show", help="documentation and defaults of one of them, and what roles get from it"
    )
    showing.add_argument(
        "name", metavar="NAME", help="of an optimizer or a schedule, or its dotted path"
    )
    showing.add_argument(
        "words",
        nargs=argparse.REMAINDER,
        metavar="FILE.toml | --key value",
        help="of a run, over configs/gpt2_124m.toml and the first preset of this name",
    )
    showing.set_defaults(run=_show)
    drawing = commands.add_parser("schedules", help="factors of the schedules, as table or picture")
    drawing.add_argument("names", nargs="*", metavar="NAME", help="default: all of them")
    drawing.add_argument("--total-steps", type=int, default=1000, help="updates (default: 1000)")
    drawing.add_argument("--out", type=Path, metavar="FILE.png", help="draw a picture instead")
    drawing.set_defaults(run=_schedules)
    return parser


def _list(options: argparse.Namespace) -> None:
    header = ("optimizer", "paper", "state", "traffic", "hooks", "lr", "preset")
    table = [
        (
            row.name,
            row.paper,
            f"{row.state:.3g}",
            f"{row.traffic:.3g}",
            row.hooks or "-",
            f"{row.lr:g}",
            ", ".join(row.presets) or "-",
        )
        for row in listing.rows()
    ]
    note = (
        "state: bytes kept per parameter of a hidden matrix in float32; traffic: the fewest bytes"
        " that a step\ncan read and write per parameter; presets: configs/optimizer/*.toml"
    )
    if options.markdown:
        for line in (header, tuple("---" for _ in header), *table):
            print(f"| {' | '.join(line)} |")
        print(f"\n{note}")
        return
    widths = [max(map(len, column)) for column in zip(header, *table, strict=True)]
    for line in (header, *table):
        print("  ".join(f"{word:<{n}}" for word, n in zip(line, widths, strict=True)).rstrip())
    print(f"\n{note}\n\nschedules (the values of schedule.name; then the defaults)")
    for name, target in SCHEDULES.items():
        print(f"  {name:<21} {_defaults(target)}")
    print("\nwrappers, in their order (tables [optimizer.wrap.NAME] over any optimizer)")
    for name, wrapper in WRAPPERS.items():
        print(f"  {name:<21} {_defaults(wrapper)}".rstrip())


def _show(options: argparse.Namespace) -> None:
    name = options.name
    kind, target = _found(name)
    text = inspect.cleandoc(target.__doc__ or "no documentation")  # not that of a base class
    print(f"{name}\n{'=' * len(name)}\n{text}\n\nDefaults:")
    for key, (_, default) in schema(target).items():
        print(f"  {kind}.{key} = {'(must be given)' if default is ... else _text(default)}")
    if name in WRAPPERS:
        return  # it has no preset, and acts on every role
    presets = (name,) if name in SCHEDULES else listing.presets().get(name, ())
    for preset in presets:
        print(f"Preset: configs/{kind}/{preset}.toml")
    if not options.words and any(default is ... for _, default in schema(target).values()):
        return  # no configuration without them
    files = [f"configs/{kind}/{preset}.toml" for preset in presets[:1]]
    words = [str(PRESETS.parent / file) for file in files]
    config = resolve(load([str(DEFAULT), *words, f"--{kind}.name={name}", *options.words]))
    given = " ".join([*files, *options.words]) or "these defaults"
    print(f"\nBy role, in a run with {given}:")
    for line in by_role.lines(config):
        print(f"  {line}")


def _found(name: str) -> tuple[str, Callable[..., Any]]:
    """Kind and definition of what a configuration calls `name`."""
    if name in OPTIMIZERS:
        return "optimizer", OPTIMIZERS[name]
    if name in SCHEDULES:
        return "schedule", SCHEDULES[name]
    if name in WRAPPERS:
        return f"optimizer.wrap.{name}", WRAPPERS[name]
    if "." not in name:
        known = nearest(name, [*OPTIMIZERS, *SCHEDULES, *WRAPPERS])
        raise ConfigError(f"no optimizer, schedule or wrapper '{name}'; {known}")
    if inspect.isfunction(imported(name, "NAME")):
        return "schedule", schedule_function(name)
    return "optimizer", optimizer_class(name)


def _defaults(target: Callable[..., Any]) -> str:
    fields = schema(target).items()
    return ", ".join(f"{name} {_text(default)}" for name, (_, default) in fields)


def _text(value: Any) -> str:
    if isinstance(value, tuple):
        return f"({', '.join(map(_text, value))})"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _schedules(options: argparse.Namespace) -> None:
    names = options.names or list(SCHEDULES)
    built = [build_schedule(name, options.total_steps) for name in names]
    if options.out is not None:
        _draw(built, options.out)
        print(f"wrote {options.out}")
        return
    width = max(21, *(len(schedule.name) + 1 for schedule in built))
    print(f"{'schedule':<{width}}{'first':>9}{'peak':>9}{'mean':>9}{'last':>11}")
    for schedule in built:
        print(
            f"{schedule.name:<{width}}{schedule(0):9.4f}{schedule.peak_factor:9.4f}"
            f"{schedule.mean_factor:9.4f}{schedule.last_factor:11.2e}"
        )


def _draw(built: list[Schedule], out: Path) -> None:
    """Small multiples on one pair of axes: factor against the part of the run that is done."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise ConfigError(
            "--out needs matplotlib, which is not installed; pip install matplotlib"
        ) from None
    columns = min(_COLUMNS, len(built))
    rows = -(-len(built) // columns)
    figure = Figure(figsize=(2.05 * columns, 1.75 * rows + 0.35), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False)
    for axis in axes.flat[len(built) :]:
        axis.set_visible(False)
    for axis, schedule in zip(axes.flat, built, strict=False):
        _panel(axis, schedule)
    label = "part of the run (%); the dashed line and the number are the mean factor"
    figure.supxlabel(label, fontsize=8, color="#555")
    figure.supylabel("factor on the base learning rate", fontsize=8, color="#555")
    try:
        figure.savefig(out, dpi=110)
    except (OSError, ValueError) as error:
        raise ConfigError(f"--out = {out}: cannot be written ({error})") from error


def _panel(axis: Any, schedule: Schedule) -> None:
    total = schedule.total_steps
    percent = [100 * step / total for step in range(total)]
    factors = schedule.factors[:-1]
    axis.fill_between(percent, factors, color="#2563eb", alpha=0.12, linewidth=0)
    axis.plot(percent, factors, color="#1d4ed8", linewidth=1.4, solid_joinstyle="round")
    axis.axhline(schedule.mean_factor, color="#9ca3af", linewidth=0.8, linestyle=(0, (4, 3)))
    axis.set_title(schedule.name, fontsize=8, fontweight="bold", loc="left", color="#111827")
    axis.set_title(f"{schedule.mean_factor:.2f}", fontsize=7.5, loc="right", color="#6b7280")
    axis.set(xlim=(0, 100), ylim=(0, 1.06), xticks=(0, 50, 100), yticks=(0, 0.5, 1))
    axis.tick_params(labelsize=7, length=2, color="#9ca3af", labelcolor="#555")
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color("#9ca3af")


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it without a traceback
    sys.exit(main())
