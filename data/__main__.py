"""`python -m data SOURCE`: make a directory of token shards, or look into one."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import ModuleType

from data import coinflip, fineweb, inspection, show, stdlib, text
from data.console import Parser
from data.formats import DataError

# A source is a module with HELP, add_arguments(parser) and run(args).
COMMANDS: dict[str, ModuleType] = {
    "fineweb": fineweb,
    "text": text,
    "stdlib": stdlib,
    "coinflip": coinflip,
    "inspect": inspection,
    "show": show,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code: 0, 2 for a user error, 130 for Ctrl-C."""
    typed = list(sys.argv[1:] if argv is None else argv)
    parser = _parser()
    args = parser.parse_args(typed)
    if args.command is None:
        parser.print_help()
        return 0
    args.typed = typed
    try:
        COMMANDS[args.command].run(args)
    except DataError as error:
        print(f"python -m data {args.command}: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on after the last whole shard", file=sys.stderr)
        return 130
    return 0


def _parser() -> Parser:
    parser = Parser(prog="python -m data", description=__doc__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=Parser)
    for name, module in COMMANDS.items():
        command = commands.add_parser(name, help=module.HELP, description=module.__doc__)
        module.add_arguments(command)
    return parser


def _leave(code: int) -> None:
    """Exit without the interpreter's clean-up if pyarrow was used.

    Its reader threads abort or hang a process that ends with a Parquet file half read (apache/arrow
    issue 45214, huggingface/datasets issue 7467). Everything we write is on disk by now.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if "pyarrow" in sys.modules:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    _leave(main())
