"""How fast text becomes GPT-2 tokens: one thread of tiktoken, and our pipeline on processes.

    python -m bench.tokenize_speed [FILE] [--workers 1 2 4] [--megabytes 30]

Without FILE the text is this Python's own library. The reference is one thread of tiktoken on ready
strings: W workers on W free cores can come close to W times its speed. What is missing is spent on
moving text and tokens between processes, or on cores that are not free.
"""

from __future__ import annotations

import argparse
import sysconfig
import time
from pathlib import Path

from data.fineweb import DOCUMENTS_PER_BATCH
from data.parallel import available_cores, encoded, in_batches
from data.stdlib import source_files
from data.text import cut
from data.vocabulary import GPT2

DOCUMENT_CHARS = 3000  # about FineWeb's mean


def main() -> None:
    """Print the speeds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", nargs="?", type=Path, help="UTF-8 text")
    parser.add_argument("--workers", nargs="+", type=int, default=[1, available_cores()])
    parser.add_argument("--megabytes", type=float, default=30.0, help="text to tokenize, repeated")
    args = parser.parse_args()
    documents = load_documents(args.file, args.megabytes * 1e6)
    size = sum(map(len, documents))
    print(f"{len(documents):,} documents, {size / 1e6:.1f} M characters, {available_cores()} cores")
    floor = single_thread(documents)
    for workers in sorted(set(args.workers)):
        speed, started = pipeline(documents, workers)
        print(
            f"{workers} workers: {speed / 1e6:.2f} M tokens/s, {speed / floor / workers:.0%} of"
            f" {workers} x one thread (after {started:.1f} s of starting)"
        )


def load_documents(file: Path | None, characters: float) -> list[str]:
    """Documents of some thousand characters, repeated until there are `characters`."""
    if file is None:
        root = Path(sysconfig.get_path("stdlib"))
        texts = [(root / name).read_text(errors="replace") for name in source_files(root)]
    else:
        texts = [file.read_text(encoding="utf-8")]
    documents = [piece for text in texts for piece in cut(text, DOCUMENT_CHARS)]
    times = characters / sum(map(len, documents))
    return (documents * (int(times) + 1))[: round(len(documents) * times)]


def single_thread(documents: list[str]) -> float:
    """Tokens per second of tiktoken alone, in this process."""
    tokenizer = GPT2()
    tokenizer.encode(documents[:100])
    part = documents[: max(1, len(documents) // 4)]
    start = time.perf_counter()
    tokens = sum(map(len, tokenizer._encoding.encode_ordinary_batch(part, num_threads=1)))
    speed = tokens / (time.perf_counter() - start)
    print(f"tiktoken, one thread: {speed / 1e6:.2f} M tokens/s")
    return speed


def pipeline(documents: list[str], workers: int) -> tuple[float, float]:
    """Tokens per second of the pipeline once it runs, and the seconds to its first batch."""
    batches = ((None, batch) for batch in in_batches(documents, DOCUMENTS_PER_BATCH))
    start = time.perf_counter()
    results = encoded(batches, GPT2(), workers=workers)
    next(results)
    running = time.perf_counter()
    tokens = sum(len(array) for _, array in results)
    return tokens / (time.perf_counter() - running), running - start


if __name__ == "__main__":
    main()
