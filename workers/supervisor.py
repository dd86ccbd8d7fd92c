"""Process 1 of a sandbox: prepares, starts the services, passes on what they say, ends when the worker does.

Runs inside the walls by itself (`python3 supervisor.py job.json`), so it imports nothing of ours. Its job:

    {"prepare": [[argument, …], …], "services": {name: [argument, …]}, "ready": {name: [host, port, path]},
     "once": {name: [argument, …]}}

It prints one JSON object a line: {"from": name, "line": text} · {"ended": name, "status": number} · {"up": name} when
that has answered · {"ready": true} when all have. A line {"run": name} on its standard input has it run one of "once".
When a service ends, the others stay, so that everything can still be looked at.
"""

import http.client
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

LINE_BYTES = 4096
POLL_S = 0.03

_print_lock = threading.Lock()
_start_lock = threading.Lock()  # held until a child's name is known, so that it cannot end before


def say(**message: object) -> None:
    with _print_lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def forward(name: str, process: "subprocess.Popen[bytes]") -> None:
    assert process.stdout is not None
    while line := process.stdout.readline(LINE_BYTES):
        say(**{"from": name, "line": line.decode("utf-8", "replace").rstrip()})


def launch(name: str, arguments: list[str]) -> "subprocess.Popen[bytes]":
    process = subprocess.Popen(
        arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    threading.Thread(target=forward, args=(name, process), daemon=True).start()
    return process


# Process id → name and process; one that is forgotten is waited for by Python itself, which keeps what it hears
Children = dict[int, "tuple[str, subprocess.Popen[bytes]]"]


def begin(children: Children, name: str, arguments: list[str]) -> None:
    with _start_lock:
        process = launch(name, arguments)
        children[process.pid] = name, process


def reap(children: Children) -> None:
    """Wait for every child, adopted orphans too, and tell of those with a name that end."""
    while True:
        try:
            pid, status = os.wait()
        except ChildProcessError:
            return
        with _start_lock:
            known = children.pop(pid, None)
        if known is not None:
            name, process = known
            process.returncode = os.waitstatus_to_exitcode(status)
            say(ended=name, status=process.returncode)


def answers(host: str, port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(host, port, timeout=2)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def wait_ready(checks: dict[str, list[object]]) -> None:
    for name, (host, port, path) in checks.items():
        while not answers(str(host), int(str(port)), str(path)):
            time.sleep(POLL_S)
        say(up=name)
    say(ready=True)


def main(job_file: str) -> None:
    job = json.loads(Path(job_file).read_text(encoding="utf-8"))
    for arguments in job["prepare"]:
        process = launch("prepare", arguments)
        if status := process.wait():
            time.sleep(0.1)  # its last lines are on their way
            say(ended="prepare", status=status)
            return
    children: Children = {}
    for name, arguments in job["services"].items():
        begin(children, name, arguments)
    threading.Thread(target=reap, args=(children,), daemon=True).start()
    threading.Thread(target=wait_ready, args=(job["ready"],), daemon=True).start()
    for line in sys.stdin:  # until the worker closes it, or dies
        name = json.loads(line)["run"]
        begin(children, name, job["once"][name])


if __name__ == "__main__":
    main(sys.argv[1])
