"""Where the hyperparameters of a run come from: a flag, a file, or the default of the code."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from configs.loading import PRESETS, flat, layers, merge
from configs.schema import Config, Named

FLAG, DEFAULT = "flag", "default"


def origins(argv: Sequence[str]) -> dict[str, str]:
    """The last layer that gives each key of [optimizer] and [schedule]: "flag", or a file.

    Raises:
        ConfigError: as `load`.
    """
    found: dict[str, dict[str, str]] = {"optimizer": {}, "schedule": {}}
    merged: dict[str, Any] = {}
    for path, layer in layers(argv):
        merged = merge(merged, layer)
        for table, keys in found.items():
            given = flat(layer.get(table, {}))
            keys |= dict.fromkeys(given, _shown(path) if path else FLAG)
            for dropped in keys.keys() - flat(merged.get(table, {})).keys():  # by another name
                del keys[dropped]
    return {
        f"{table}.{key}": origin for table, keys in found.items() for key, origin in keys.items()
    }


def settings(config: Config, origins: Mapping[str, str]) -> list[str]:
    """One line each for the optimizer and the schedule of a resolved configuration.

    Hyperparameters stand together by origin. If a flag chose the name, and a preset of that name
    has other values than the defaults in use, the line says so.
    """
    tables = (("optimizer", config.optimizer), ("schedule", config.schedule))
    return [f"{key:<9} {_line(key, named, origins)}" for key, named in tables]


def _line(table: str, named: Named, origins: Mapping[str, str]) -> str:
    groups: dict[str, dict[str, Any]] = {}
    values = flat(named.model_dump(exclude={"name"}))
    for key, value in sorted(values.items(), key=lambda item: "." in item[0]):  # roles last
        origin = origins.get(f"{table}.{key}", DEFAULT)
        if origin != DEFAULT or not key.startswith("roles.") or not key.endswith(".lr_ratio"):
            groups.setdefault(origin, {})[key] = value
    order = sorted(groups, key=lambda origin: (origin != FLAG, origin == DEFAULT))
    lr = values.get("lr")
    parts = [f"{_words(groups[origin], lr)} ({origin})" for origin in order]
    preset = PRESETS / table / f"{named.name}.toml"
    if origins.get(f"{table}.name") == FLAG and preset.is_file():
        given = flat(tomllib.loads(preset.read_text(encoding="utf-8"))[table])
        unused = groups.get(DEFAULT, {})
        other = {k: v for k, v in given.items() if k in unused and _text(v) != _text(unused[k])}
        if other:
            parts.append(f"preset {_shown(preset)} has {_words(other, lr)}")
    return f"{named.name}{': ' if parts else ''}{'; '.join(parts)}"


def _shown(path: Path) -> str:
    """As typed; a preset as it is typed from the project's folder."""
    return str(path.relative_to(PRESETS.parent) if path.is_relative_to(PRESETS) else path)


def _words(values: Mapping[str, Any], lr: Any) -> str:
    return ", ".join(_word(key, value, lr) for key, value in values.items())


def _word(key: str, value: Any, lr: Any) -> str:
    """One hyperparameter; a ratio of a role as the rate that it gives: embedding lr 0.001 (x2)."""
    if key.startswith("roles."):
        key = key.removeprefix("roles.").replace(".", " ")
        if key.endswith(" lr_ratio") and isinstance(lr, float):
            return f"{key.removesuffix('_ratio')} {lr * value:g} (x{value:g})"
    return f"{key} {_text(value)}"


def _text(value: Any) -> str:
    """As a flag takes it: 0.9,0.99."""
    if isinstance(value, list | tuple):
        items = [f"[{_text(i)}]" if isinstance(i, list | tuple) else _text(i) for i in value]
        return ",".join(items)
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)
