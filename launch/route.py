"""How this machine reaches another: `python -m launch.route ADDRESS PORT [SECONDS]`.

Prints the interface and the own address on the route to ADDRESS, and 1 or 0 for whether ADDRESS is
this machine itself. Where it is another and SECONDS are given, waits that long for it to answer at
PORT first. gloo and torchrun's c10d believe the address of the host's name instead, which on many
systems is 127.0.1.1; see docs/launch.md. Only the standard library, so that it takes no time.
"""

from __future__ import annotations

import fcntl
import socket
import struct
import sys
import time


def own_address(address: str) -> str:
    """The address that packets to `address` would come from; sends nothing."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return probe.getsockname()[0]


def interface(own: str) -> str:
    """The interface with this address; "" where none says so."""
    siocgifaddr = 0x8915
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        for _, name in socket.if_nameindex():
            request = struct.pack("256s", name.encode())
            try:
                answer = fcntl.ioctl(probe, siocgifaddr, request)
            except OSError:  # an interface without an IPv4 address
                continue
            if socket.inet_ntoa(answer[20:24]) == own:
                return name
    return ""


def answers(address: str, port: int, seconds: float) -> bool:
    """Whether something listens there before `seconds` are over."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            socket.create_connection((address, port), timeout=left).close()
            return True
        except OSError:
            time.sleep(min(0.2, left))
    return False


def main(words: list[str]) -> int:
    """Run one command line; returns the exit code."""
    name, port, seconds = words[0], int(words[1]), float(words[2] if len(words) > 2 else 0)
    try:
        address = socket.getaddrinfo(name, port, socket.AF_INET)[0][4][0]
        own = own_address(str(address))
    except OSError as error:
        print(f"error: {socket.gethostname()} knows no way to {name}: {error}", file=sys.stderr)
        return 2
    here = own == address
    if not here and seconds and not answers(str(address), port, seconds):
        print(
            f"error: {socket.gethostname()} got no answer from node 0 at {name}:{port} within "
            f"{seconds:g} s; is it up, started with this address and port, and not behind a "
            "firewall?",
            file=sys.stderr,
        )
        return 2
    print(interface(own) or "-", own, int(here))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
