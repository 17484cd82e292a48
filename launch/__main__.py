"""`python -m launch CONTEST.toml` was the command of contests; it names the new one."""

import shlex
import sys

if __name__ == "__main__":
    command = shlex.join(["python", "-m", "contest", *sys.argv[1:]])
    print(f"error: contests have a command of their own: {command}", file=sys.stderr)
    sys.exit(2)
