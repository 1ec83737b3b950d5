"""Shell commands whose verbs run in this process: a verb apart spends four seconds on its imports.

`run` starts a shell in which `cxr-embed VERB` and `python -m run_inference` are small programs that
hand their arguments to this process and print what comes back. All else is the real thing. That the
programs themselves start as they should is a matter of `tests/integration/test_main_job.py`.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

from cxr_embed.cli import main

_MODULES = {"run_inference": "run", "train": "train"}

_CLIENT = f"""#!{sys.executable} -SE
import json, os, socket, sys
arguments = sys.argv[1:]
if os.path.basename(sys.argv[0]).startswith("python"):
    verb = {_MODULES}.get(arguments[1]) if arguments[:1] == ["-m"] else None
    if verb is None:
        os.execv({sys.executable!r}, [{sys.executable!r}, *arguments])
    arguments = [verb, *arguments[2:]]
with socket.socket(socket.AF_UNIX) as server:
    server.connect(os.environ["VERB_SERVER"])
    server.sendall(json.dumps([os.getcwd(), arguments]).encode() + b"\\n")
    status, out, err = json.load(server.makefile())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(status)
"""


def run(text: str, folder: Path, scratch: Path) -> subprocess.CompletedProcess[str]:
    """Runs a text of shell commands in a folder, with `set -eu`."""
    programs = scratch / "programs"
    programs.mkdir(exist_ok=True)
    for name in ("cxr-embed", "python"):
        path = programs / name
        path.write_text(_CLIENT)
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    with (
        tempfile.TemporaryDirectory() as short,  # a socket's path may have no more than 107 bytes
        socket.socket(socket.AF_UNIX) as listener,
    ):
        address = f"{short}/socket"
        listener.bind(address)
        listener.listen()
        listener.settimeout(0.05)
        environment = os.environ | {"PATH": path, "VERB_SERVER": address}
        with (
            (scratch / "out").open("w+") as out,
            (scratch / "err").open("w+") as err,
            subprocess.Popen(
                ["bash", "-euc", text], cwd=folder, env=environment, stdout=out, stderr=err
            ) as shell,
        ):
            try:
                while shell.poll() is None:
                    with contextlib.suppress(TimeoutError):
                        _serve(listener.accept()[0])
            finally:
                shell.kill()
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(text, shell.wait(), out.read(), err.read())


def _serve(client: socket.socket) -> None:
    with client, client.makefile("rw") as stream:
        folder, arguments = json.loads(stream.readline())
        out, err = io.StringIO(), io.StringIO()
        with (
            contextlib.chdir(folder),
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
        ):
            try:
                status = main.main(arguments)
            except SystemExit as ended:  # --help
                status = int(ended.code or 0)
        json.dump([status, out.getvalue(), err.getvalue()], stream)
