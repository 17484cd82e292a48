"""launch/route.py: node 0 waits for its nodes, whoever else calls at the port."""

import socket
import threading

import pytest

from launch import route


@pytest.mark.parametrize(
    "said", [b"{}\n", b"[1]\n", b"3\n", b'{"host": "x", "nodes": null}\n', b"GET /\n"]
)
def test_a_stranger_at_the_port_does_not_end_the_meeting(said):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    failures = []

    def preside():
        try:
            route._preside(port, 20, 2)
        except Exception as error:
            failures.append(error)

    first = threading.Thread(target=preside)
    first.start()
    with route._connect("127.0.0.1", port, 10) as stranger:
        stranger.sendall(said)
        route._attend("127.0.0.1", port, 10, 2, 1)
    first.join(30)
    assert not failures
