"""Before torchrun on several nodes: how this node reaches the first, and whether all are there.

    python -m launch.route ADDRESS PORT SECONDS NODES RANK     # all nodes meet within SECONDS
    python -m launch.route ADDRESS PORT SECONDS                # elastic: only the first must answer

Prints three words: the interface on the route to ADDRESS, this node's address on it, and 1 if
ADDRESS is this machine, else 0. gloo and torchrun's c10d would use the address of the host's name
instead, which on many systems is 127.0.1.1. torchrun's agents wait ten minutes for each other and
then show a traceback. Here, if a node is missing, comes twice or expects another number of nodes,
all nodes stop with one line that names it. Standard library only, so that it starts at once.
"""

from __future__ import annotations

import fcntl
import json
import socket
import struct
import sys
import time


class MeetingError(RuntimeError):
    """The nodes cannot meet; one line for the user."""


def _own_address(address: str) -> str:
    """The address from which packets to `address` would be sent; sends none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return probe.getsockname()[0]


def _interface(own: str) -> str:
    """The interface with this address; "" if there is none."""
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


def _connect(address: str, port: int, seconds: float) -> socket.socket:
    """A connection to the first node, which may start later than this one.

    Raises:
        MeetingError: no answer within `seconds`.
    """
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        try:
            return socket.create_connection((address, port), timeout=left)
        except OSError:
            time.sleep(min(0.2, left))
    raise MeetingError(
        f"{socket.gethostname()} got no answer from node 0 at {address}:{port} within {seconds:g} "
        "s; is it up, started with this address and port, and not behind a firewall?"
    )


def _attend(address: str, port: int, seconds: float, nodes: int, rank: int) -> None:
    """As node `rank` > 0: tell node 0 who this is, and read its verdict.

    Raises:
        MeetingError: node 0 is not there, or has found a problem.
    """
    me = {"host": socket.gethostname(), "nodes": nodes, "rank": rank}
    with _connect(address, port, seconds) as line:
        line.settimeout(seconds + 5)  # node 0 may have started just now, and waits as long
        line.sendall(json.dumps(me).encode() + b"\n")
        try:
            answer = line.makefile().readline()
        except OSError:
            answer = ""
    if not answer:
        raise MeetingError(f"{me['host']} lost node 0 at {address}:{port} before all had come")
    if problem := json.loads(answer):
        raise MeetingError(problem)


def _preside(port: int, seconds: float, nodes: int) -> None:
    """As node 0: wait for all the others, and send them the verdict.

    Raises:
        MeetingError: a node is missing, comes twice, or expects another number of nodes.
    """
    here, end = socket.gethostname(), time.monotonic() + seconds
    came, lines, problem = {0: here}, [], None
    try:
        server = socket.create_server(("", port), backlog=nodes)
    except OSError as error:
        raise MeetingError(
            f"{here} cannot listen at port {port}: {error}; another MASTER_PORT?"
        ) from None
    with server:
        while len(came) < nodes and not problem:
            server.settimeout(max(0.001, end - time.monotonic()))
            try:
                line, _ = server.accept()
            except TimeoutError:
                missing = ", ".join(str(n) for n in range(nodes) if n not in came)
                problem = f"node {missing} of {nodes} did not come to {here}, port {port}, within "
                problem += f"{seconds:g} s"
                break
            line.settimeout(5)
            try:
                it = json.loads(line.makefile().readline())
                host, number, count = it["host"], int(it["rank"]), int(it["nodes"])
            except (OSError, ValueError, TypeError, KeyError):  # not one of our nodes
                line.close()
                continue
            lines.append(line)
            if count != nodes:
                problem = f"{host} was started with NNODES={count}, {here} with {nodes}"
            elif number in came:
                problem = f"{host} and {came[number]} both have NODE_RANK={number}"
            came[number] = host
    for line in lines:
        with line:
            line.sendall(json.dumps(problem).encode() + b"\n")
    if problem:
        raise MeetingError(problem)


def main(words: list[str]) -> int:
    """Run one command line; returns the exit code."""
    name, port, seconds = words[0], int(words[1]), float(words[2])
    try:
        address = str(socket.getaddrinfo(name, port, socket.AF_INET)[0][4][0])
        own = _own_address(address)
        if len(words) > 4:
            nodes, rank = int(words[3]), int(words[4])
            if rank:
                _attend(address, port, seconds, nodes, rank)
            else:
                _preside(port, seconds, nodes)
        elif own != address:
            _connect(address, port, seconds).close()
    except MeetingError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        text = f"error: {socket.gethostname()} knows no way to {name}: {error}"
        print(f"{text}; MASTER_ADDR is the address of node 0", file=sys.stderr)
        return 2
    print(_interface(own) or "-", own, int(own == address))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
