"""How fast batches come from a disk that answers late: windows asked for together, and one by one.

    sudo .venv/bin/python -m bench.slow_disk [--ms 1 5 20] [--rows 64]

Mounts a file system (FUSE, Linux, as root) with one shard whose reads take so many milliseconds
each, any number side by side, as network storage does. Prints windows of 1,024 tokens a second
of one reader with a cold cache, and the bytes read for each window.
"""

import argparse
import ctypes
import itertools
import os
import struct
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from data import Tokens, loader
from data.formats import map_shard, write_shard

BATCHES = 6  # each cold
# Of the kernel's FUSE protocol, version 7.31: operations, and the sizes of what they answer.
LOOKUP, FORGET, GETATTR, OPEN, READ, RELEASE, FLUSH, INIT, BATCH_FORGET = (
    *(1, 2, 3, 14, 15, 18, 25, 26, 42),
)
SIDE_BY_SIDE, FOREVER, NAME = 256, 3600, b"x_train_0.bin"


def serve(backing: str, place: str, seconds: float) -> None:
    """Answer for the file system until it is unmounted, then print the bytes that were read."""
    size, source = Path(backing).stat().st_size, os.open(backing, os.O_RDONLY)
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0,allow_other".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"slow", place.encode(), b"fuse", 0, options):
        raise OSError(ctypes.get_errno(), f"cannot mount at {place}: this needs root and FUSE")
    read = [0]

    def answer(request: int, content: bytes = b"", error: int = 0) -> None:
        os.write(device, struct.pack("<IiQ", 16 + len(content), -error, request) + content)

    def attributes(node: int) -> bytes:
        mode, length = (0o40755, 0) if node == 1 else (0o100644, size)
        return struct.pack("<6Q10I", node, length, 0, *[0] * 6, mode, 1, 0, 0, 0, 4096, 0)

    def late(request: int, offset: int, length: int) -> None:
        time.sleep(seconds)
        read[0] += length
        answer(request, os.pread(source, length, offset))

    threads = ThreadPoolExecutor(SIDE_BY_SIDE)
    print("mounted", flush=True)
    while True:
        try:
            message = os.read(device, 1 << 20)
        except OSError:  # unmounted
            break
        _, operation, request, node = struct.unpack_from("<IIQQ", message)
        if operation == INIT:
            flags = struct.unpack_from("<I", message, 52)[0] & 1  # reads side by side
            limits = SIDE_BY_SIDE, SIDE_BY_SIDE
            numbers = 7, 31, 1 << 17, flags, *limits, 1 << 17, 1, 32, *[0] * 9
            answer(request, struct.pack("<4I2H2I2H8I", *numbers))
        elif operation == LOOKUP:
            found = message[40:].split(b"\0")[0] == NAME
            entry = struct.pack("<4Q2I", 2, 0, FOREVER, FOREVER, 0, 0) + attributes(2)
            answer(request, entry if found else b"", 0 if found else 2)
        elif operation == GETATTR:
            answer(request, struct.pack("<Q2I", FOREVER, 0, 0) + attributes(node))
        elif operation == OPEN:
            answer(request, struct.pack("<Q2I", 1, 0, 0))
        elif operation == READ:
            _, offset, length = struct.unpack_from("<QQI", message, 40)
            threads.submit(late, request, offset, length)
        elif operation in (RELEASE, FLUSH):
            answer(request)
        elif operation not in (FORGET, BATCH_FORGET):
            answer(request, error=38)  # there is no such operation
    print(read[0], flush=True)


def measured(place: Path, backing: Path, ms: float, rows: int) -> tuple[float, float]:
    """Windows a second in the best batch, and kB read for each window."""
    words = [sys.executable, "-m", "bench.slow_disk", "--serve", str(backing), str(place), str(ms)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout
        assert server.stdout.readline() == "mounted\n", "cannot mount: this needs root and FUSE"
        try:
            path = place / NAME.decode()
            windows = loader.Windows(Tokens(place, "train", [path], [map_shard(path)], 1), 1024)
            drawn = np.random.default_rng(1).permutation(len(windows))[: BATCHES * rows]
            moments = [time.perf_counter()]
            for batch in np.split(drawn, BATCHES):
                windows.take(batch)
                moments.append(time.perf_counter())
            del windows
        finally:
            subprocess.run(["umount", "--lazy", str(place)], check=True)
        read = int(server.stdout.readline())
    best = min(end - start for start, end in itertools.pairwise(moments))
    return rows / best, read / len(drawn) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ms", type=float, nargs="+", default=[1, 5, 20])
    parser.add_argument("--rows", type=int, default=64, help="sequences of a batch")
    parser.add_argument("--serve", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        backing, place, ms = options.serve
        return serve(backing, place, float(ms) / 1e3)
    ask = loader._ask_for
    with tempfile.TemporaryDirectory() as folder:
        backing, place = Path(folder) / "tokens.bin", Path(folder) / "mounted"
        place.mkdir()
        write_shard(backing, np.zeros(10**8, np.uint16))
        for ms in options.ms:
            for name, function in (("together", ask), ("one by one", lambda *_: None)):
                loader._ask_for = function
                speed, read = measured(place, backing, ms, options.rows)
                print(
                    f"{ms:g} ms, {name:<10} {speed:>7.0f} windows/s, {read:.0f} kB each", flush=True
                )
    return None


if __name__ == "__main__":
    main()
