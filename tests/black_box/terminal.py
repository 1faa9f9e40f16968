"""A command at a terminal: for programs that ask for a password only when somebody sits there."""

from __future__ import annotations

import os
import pty
import select
import signal
import time
from collections.abc import Mapping, Sequence
from pathlib import Path


class TerminalFailed(Exception):
    """The command ended with an error, or asked something else; the text has what stood on the terminal."""


def at_terminal(
    command: Sequence[str],
    env: Mapping[str, str],
    folder: Path,
    answers: Sequence[tuple[str, str]],
    seconds: float = 60,
) -> str:
    """Run `command` in `folder`, type each answer when its prompt stands there; what stood on the terminal.

    Raises `TerminalFailed`.
    """
    child, terminal = pty.fork()
    if child == 0:
        try:
            os.chdir(folder)
            os.execvpe(command[0], list(command), dict(env))
        finally:
            os._exit(127)
    shown = ""
    waiting = list(answers)
    end = time.monotonic() + seconds
    try:
        while (piece := _read(terminal, end - time.monotonic())) is not None:
            shown += piece
            if waiting and shown.endswith(waiting[0][0]):
                os.write(terminal, f"{waiting.pop(0)[1]}\n".encode())
    finally:
        os.close(terminal)
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status or waiting:
        raise TerminalFailed(f"{command} ended with {status}; not asked: {waiting}\n{shown}")
    return shown.replace("\r\n", "\n")


def _read(terminal: int, seconds: float) -> str | None:
    """What came next, or None at the end, be it the command's or of the time."""
    if not select.select([terminal], [], [], max(seconds, 0))[0]:
        return None
    try:
        return os.read(terminal, 65536).decode() or None
    except OSError:  # Linux's way to say that the other side is closed
        return None
