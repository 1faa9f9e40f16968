"""What an upload costs without HTTP: read a file, md5 and sha512, write, fsync, in one process and blocks of 1 MiB.

    python -m bench.local SOURCE TARGET SIZE [--threads]

Plain: one thing after the other. With --threads: md5 and sha512 in a thread each, while the block is written.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait

BLOCK = 1 << 20


def copy(source: str, target: str, size: int, threads: bool) -> dict[str, float]:
    """Do it once; the seconds it took."""
    hashes = [hashlib.md5(usedforsecurity=False), hashlib.sha512(usedforsecurity=False)]
    began = time.perf_counter()
    with open(source, "rb", buffering=0) as reading, open(target, "xb", buffering=0) as writing:
        step = _step_in_threads if threads else _step
        with ThreadPoolExecutor(2) as pool:
            done = 0
            while done < size:
                block = reading.read(min(BLOCK, size - done))
                step(block, [each.update for each in hashes], writing.write, pool)
                done += len(block)
        os.fsync(writing.fileno())
    return {"seconds": time.perf_counter() - began}


def _step(
    block: bytes, updates: list[Callable[[bytes], None]], write: Callable[[bytes], int], pool: ThreadPoolExecutor
) -> None:
    for update in updates:
        update(block)
    write(block)


def _step_in_threads(
    block: bytes, updates: list[Callable[[bytes], None]], write: Callable[[bytes], int], pool: ThreadPoolExecutor
) -> None:
    running = [pool.submit(update, block) for update in updates]
    write(block)
    wait(running)


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.local")
    parser.add_argument("source")
    parser.add_argument("target")
    parser.add_argument("size", type=int)
    parser.add_argument("--threads", action="store_true")
    options = parser.parse_args()
    print(json.dumps(copy(options.source, options.target, options.size, options.threads)))


if __name__ == "__main__":
    main()
