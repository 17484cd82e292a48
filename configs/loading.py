"""From a command line to a Config: TOML files left to right, then `--dotted.key value`."""

from __future__ import annotations

import functools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel

from configs.nanogpt import NAMES
from configs.schema import ROLES, Config, Named
from configs.validation import ConfigError, guess, nearest, validate

PRESETS = Path(__file__).parent
DEFAULT = PRESETS / "gpt2_124m.toml"  # read if no file is given


def load(argv: Sequence[str]) -> Config:
    """Config of a command line such as `base.toml wsd.toml --optimizer.lr 3e-4 --seed 2`.

    Without a file, configs/gpt2_124m.toml is read.

    Raises:
        ConfigError: a file, key or value is wrong; one line.
    """
    table: dict[str, Any] = {}
    read = layers(argv)
    for _, layer in read:
        table = merge(table, layer)
    if missing := [key for key in ("model", "train", "data") if key not in table]:
        raise ConfigError(
            f"no [{missing[0]}] table in {', '.join(str(path) for path, _ in read if path)}; begin "
            f"with a whole configuration such as configs/{DEFAULT.name} and put overlays after it"
        )
    return validate(Config, table)


def layers(argv: Sequence[str]) -> list[tuple[Path | None, dict[str, Any]]]:
    """The tables of a command line in the order in which they are merged; None: the flags.

    Raises:
        ConfigError: a file cannot be read, or a flag is wrong; one line.
    """
    files, overrides = _split(argv)
    return [*((path, _read(path)) for path in files or [DEFAULT]), (None, overrides)]


def merge(base: Mapping[str, Any], layer: Mapping[str, Any]) -> dict[str, Any]:
    """`layer` over `base`, table by table.

    A table whose `name` changes starts empty, so that AdamW's betas never leak into Lion.
    """
    merged = dict(base)
    for key, value in layer.items():
        old = merged.get(key)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            renamed = "name" in value and value["name"] != old.get("name")
            merged[key] = dict(value) if renamed else merge(old, value)
        else:
            merged[key] = value
    return merged


def flat(table: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{dotted key: value} of nested tables; keys that are dotted already stay as they are."""
    result: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, Mapping):
            result |= flat(value, f"{prefix}{key}.")
        else:
            result[prefix + key] = value
    return result


def usage() -> str:
    """Text of --help: how to call, and every key with type, default and meaning."""
    default = load([]).table()
    rows = []
    for key, kind, meaning in keys():
        value: Any = default
        for part in key.split("."):
            value = value.get(part, "-") if isinstance(value, Mapping) else "-"
        rows.append((f"--{key}", kind, str(value), meaning))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = [
        "  ".join([*(c.ljust(w) for c, w in zip(r, widths, strict=False)), r[3]]) for r in rows
    ]
    return "\n".join(
        [
            "usage: python -m launch [FILE.toml ...] [--key value ...]",
            "       torchrun --nproc_per_node=N train_gpt2.py [FILE.toml ...] [--key value ...]",
            "",
            "Files are merged left to right, then the overrides; none: configs/gpt2_124m.toml.",
            "--print-config prints the resolved configuration and leaves; --help prints this.",
            "",
            "key, type, default (of configs/gpt2_124m.toml), meaning:",
            *lines,
            "--optimizer.* and --schedule.*: their hyperparameters, see `python -m optim list`.",
        ]
    )


def _split(argv: Sequence[str]) -> tuple[list[Path], dict[str, Any]]:
    files: list[Path] = []
    overrides: dict[str, Any] = {}
    kinds = {key: kind for key, kind, _ in keys()}
    words, key = iter(argv), ""
    for word in words:
        if not word.startswith("--"):
            files.append(_file(word, after=key))
            continue
        key, equals, text = word[2:].partition("=")
        if not equals:
            text = next(words, "")
            if not text or text.startswith("--"):
                raise ConfigError(f"--{key} needs a value: --{key} VALUE")
        _check_key(key)
        _put(overrides, key, text if kinds.get(key) == "str" else _value(text))
    return files, overrides


def _file(word: str, after: str) -> Path:
    """The file that `word` names. after: the last flag before it."""
    path = Path(word)
    if path.suffix != ".toml":
        hint = f"; a list is one word, as --{after} 1,2" if after and _number(word) else ""
        raise ConfigError(
            f"unexpected argument '{word}'{hint}; give TOML files and --key value overrides"
        )
    if not path.is_file():
        known = [str(p.relative_to(PRESETS.parent)) for p in PRESETS.rglob("*.toml")]
        near = guess(word, known)
        raise ConfigError(f"no configuration file '{word}'; {near or f'presets lie in {PRESETS}'}")
    return path


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None


def _value(text: str) -> Any:
    """A TOML value, or what people also write: `0.9,0.99`, `(0.9, 0.99)`, `1e3` for 1000, `.5`,
    `True`. Any other text is a string, so that names need no quotes.
    """
    bracketed = re.sub(r"(?<!\d)\.(?=\d)", "0.", text.replace("(", "[").replace(")", "]"))
    for form in (text, bracketed, *([f"[{bracketed}]"] if "," in text else []), text.lower()):
        try:
            value = tomllib.loads(f"value = {form}")["value"]
        except tomllib.TOMLDecodeError:
            continue
        # 1e3 is meant as a whole number. Where a float is needed, 1000 is the same.
        scientific = isinstance(value, float) and "e" in form.lower()
        return int(value) if scientific and value.is_integer() else value
    return text


def _number(word: str) -> bool:
    return isinstance(_value(word), int | float | list)


def _put(table: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for part in parents:
        table = table.setdefault(part, {})
    table[last] = value


@functools.cache
def keys() -> tuple[tuple[str, str, str], ...]:
    """(dotted key, type, meaning) of every key of the schema."""
    return tuple(_walk())


def _walk() -> Iterator[tuple[str, str, str]]:
    settable = {k: field for k, field in Config.model_fields.items() if k != "versions"}
    for name, field in settable.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _within(name, inner)
        else:
            yield name, _type(inner), field.description or ""


def _within(table: str, model: type[BaseModel]) -> Iterator[tuple[str, str, str]]:
    for key, field in model.model_fields.items():
        kind, own = field.annotation, (get_args(field.annotation) or (None,))[-1]
        if get_origin(kind) is not dict:
            yield f"{table}.{key}", _type(kind), field.description or ""
        elif isinstance(own, type) and issubclass(own, BaseModel):
            for role in ROLES:
                yield from _within(f"{table}.{key}.{role}", own)


def _type(annotation: Any) -> str:
    if isinstance(annotation, type):
        return annotation.__name__
    parts = [p if isinstance(p, str) else _type(p) for p in get_args(annotation)]
    return "|".join(p for p in parts if p != "NoneType")


def _check_key(key: str) -> None:
    """Refuse a misspelt override here, where the full dotted key can be suggested."""
    known = [k for k, _, _ in keys()]
    if key == "versions":  # a planner gives them
        return
    head, *rest = key.split(".")
    table = Config.model_fields[head].annotation if head in Config.model_fields else None
    named = isinstance(table, type) and issubclass(table, Named)
    nested = (len(rest) == 3 and rest[0] == "roles") or (len(rest) > 1 and rest[0] == "wrap")
    if key in known or (named and (len(rest) == 1 or nested)):
        return
    if any(k.startswith(f"{head}.") for k in known):
        known = [k for k in known if k.startswith(f"{head}.")]
    if key in NAMES:
        raise ConfigError(f"unknown key '{key}'; {NAMES[key]}")
    settable = [*known, "optimizer.lr"]
    ends = [k for end in (f".{key}", f"_{key}") for k in settable if k.endswith(end)]
    hint = f"did you mean '{ends[0]}'? (--help)" if ends else nearest(key, known)
    raise ConfigError(f"unknown key '{key}'; {hint}")
