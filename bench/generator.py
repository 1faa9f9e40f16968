"""Starts the load generators of `bench.load` and `bench.local` and reads what they found."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bench.servers import ROOT
from tests.rig.process import plain_environment


class GeneratorFailed(Exception):
    """A load generator ended with an error; the text is what it printed."""


def _start(module: str, *arguments: object, nice: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", f"bench.{module}", *map(str, arguments)]
    return subprocess.Popen(
        ["nice", f"-n{nice}", *command] if nice else command,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        env=plain_environment(),
    )  # fmt: skip


def _finish(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate(timeout=600)
    if process.returncode:
        raise GeneratorFailed(errors or output)
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


def run(module: str, *arguments: object) -> dict[str, Any]:
    """Run one to its end. Raises `GeneratorFailed`."""
    return _finish(_start(module, *arguments))


@contextmanager
def running(module: str, *arguments: object, nice: int = 0) -> Iterator[dict[str, Any]]:
    """Have one run beside; its result is in the dictionary afterwards. Raises `GeneratorFailed`."""
    process = _start(module, *arguments, nice=nice)
    result: dict[str, Any] = {}
    try:
        assert process.stdout is not None
        if process.stdout.readline() != "ready\n":
            _finish(process)
            raise GeneratorFailed("it was not ready")
        yield result
        result.update(_finish(process))
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
