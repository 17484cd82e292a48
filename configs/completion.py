"""Shell completion for the commands of this project: bash, and zsh through its bashcompinit.

    eval "$(python -m configs.completion)"       # in this shell, or in ~/.bashrc

Our commands begin with python or torchrun, so what is printed completes these two: keys, names and
choices after train_gpt2.py and `-m launch`, options after our other modules; elsewhere, and for all
other programs, files as before.
"""

from __future__ import annotations

import tomllib

from configs.loading import PRESETS, flat, keys

TYPES = ("str", "int", "float", "bool")
SCRIPT = r"""
_gpt2_bench() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} line="${COMP_LINE} "
    local module candidates=""
    COMPREPLY=()
    case "$line" in
        *train_gpt2.py\ *|*\ -m\ launch\ *)
            case "$before" in
@CHOICES@
                *) [[ $word == -* ]] && candidates="@KEYS@" ;;
            esac ;;
        *\ -m\ optim\ show\ *) candidates="@NAMES@" ;;
        *\ -m\ contest\ *|*\ -m\ report\ *|*\ -m\ data\ *|*\ -m\ optim\ *)
            module=${line##* -m }
            [[ $word == -* ]] && candidates=$("${COMP_WORDS[0]}" -m ${module%% *} --help \
                2>/dev/null | grep -o -E -e '--[a-z][a-z_-]+' | sort -u) ;;
        *) [[ $before == -m ]] && candidates="launch contest report data optim" ;;
    esac
    [[ -n $candidates ]] && COMPREPLY=($(compgen -W "$candidates" -- "$word"))
}
if [[ -n $ZSH_VERSION ]]; then
    type compdef >/dev/null || { autoload -Uz compinit && compinit; }
    autoload -Uz bashcompinit && bashcompinit
fi
complete -o default -o bashdefault -F _gpt2_bench python python3 torchrun
"""


def script() -> str:
    """What a shell evaluates: today's keys, choices and names."""
    names = {kind: _presets(kind) for kind in ("optimizer", "schedule")}
    choices = {f"{kind}.name": list(files) for kind, files in names.items()}
    options = []
    for key, kind, _ in keys():
        options.append(f"--{key}")
        if kind == "bool":
            choices[key] = ["true", "false"]
        elif "|" in kind and key not in choices:
            choices[key] = [c for c in kind.split("|") if c.islower() and c not in TYPES]
    options += [f"--{kind}.{key}" for kind, files in names.items() for key in _used(files)]
    cases = [
        f'                --{key}) candidates="{" ".join(words)}" ;;'
        for key, words in choices.items()
        if words
    ]
    filled = {
        "@CHOICES@": "\n".join(cases),
        "@KEYS@": " ".join(dict.fromkeys([*options, "--help", "--print-config"])),
        "@NAMES@": " ".join(word for files in names.values() for word in files),
    }
    text = SCRIPT.lstrip("\n")
    for mark, words in filled.items():
        text = text.replace(mark, words)
    return text


def _presets(kind: str) -> dict[str, dict[str, object]]:
    """{name: its table} of every optimizer or schedule; each has a preset."""
    files = sorted((PRESETS / kind).glob("*.toml"))
    tables = [tomllib.loads(path.read_text(encoding="utf-8"))[kind] for path in files]
    return {table["name"]: table for table in tables}


def _used(files: dict[str, dict[str, object]]) -> list[str]:
    """Hyperparameters that a preset sets."""
    return sorted({key for table in files.values() for key in flat(table)})


if __name__ == "__main__":
    print(script(), end="")
