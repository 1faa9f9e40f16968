"""Runs many commands of the real clients, with their long imports done once: a program of the clients' environment.

A line of standard input is a command, its outcome a line of standard output (see client_shell.py). Each command runs in
a fork, so it starts as fresh as in a process of its own. It sits at a terminal where nothing is typed; one with a
standard input of its own reads that.
"""

import importlib
import io
import json
import os
import runpy
import signal
import sys
import tempfile
import time
import traceback

# What `openstack` loads while it looks for its commands and its way to sign in.
WARM = ("openstackclient.shell", "openstackclient.image.client", "openstackclient.image.v2.image",
        "openstackclient.image.v2.metadef_namespaces", "openstack.image.v2._proxy", "glanceclient.shell",
        "glanceclient.v2.shell", "keystoneauth1.loading", "keystoneauth1.identity.v3")  # fmt: skip
LIMIT = 120  # seconds after which a command that hangs is ended


def main() -> None:
    """Answer commands until the standard input ends."""
    for name in WARM:
        importlib.import_module(name)
    for line in sys.stdin:
        outcome = run(**json.loads(line))
        print(json.dumps(outcome), flush=True)


def run(arguments: list, env: dict, stdin: str | None, folder: str) -> dict:
    """One command in a fork; its exit status and what it printed."""
    started = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, tempfile.TemporaryFile() as typed:
        typed.write((stdin or "").encode())
        typed.seek(0)
        child = os.fork()
        if child == 0:
            status = 70
            signal.alarm(LIMIT)
            try:
                terminal = os.openpty()[1] if stdin is None else typed.fileno()
                for number, file in enumerate((terminal, out.fileno(), err.fileno())):
                    os.dup2(file, number)
                sys.stdin, sys.stdout, sys.stderr = (
                    io.TextIOWrapper(open(number, mode, closefd=False), encoding="utf-8")  # noqa: SIM115
                    for number, mode in ((0, "rb"), (1, "wb"), (2, "wb"))
                )
                os.chdir(folder)
                os.environ.clear()
                os.environ.update(env)
                status = command(arguments)
                sys.stdout.flush()
                sys.stderr.flush()
            except Exception:
                traceback.print_exc()
                sys.stderr.flush()
            finally:
                os._exit(status)
        _, status = os.waitpid(child, 0)
        printed = []
        for file in (out, err):
            file.seek(0)
            printed.append(file.read().decode(errors="replace"))
    seconds = time.monotonic() - started
    return {"code": os.waitstatus_to_exitcode(status), "out": printed[0], "err": printed[1], "seconds": seconds}


def command(arguments: list) -> int:
    """What the program of that name does when it is started: its exit status."""
    sys.argv = list(arguments)
    program = os.path.join(os.path.dirname(sys.executable), arguments[0])
    try:
        runpy.run_path(program, run_name="__main__")
    except SystemExit as end:
        if end.code is None or isinstance(end.code, int):
            return end.code or 0
        print(end.code, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    main()
