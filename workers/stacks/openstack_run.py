"""Starts one service when those it needs are there; runs inside the walls by itself.

`python3 openstack_run.py needed command…` becomes the command; `… needed wsgi module address port` serves a module's
WSGI application. `needed` lists addresses, `host:port` or the path of a socket, with commas between.
"""

import importlib
import os
import socket
import sys
import time

POLL_S = 0.05
THREADS = 4


def wait_for(address: str) -> None:
    """Until something listens there; whoever deploys has a deadline."""
    host, _, port = address.rpartition(":")
    while True:
        try:
            if host:
                socket.create_connection((host, int(port)), 2).close()
            else:
                with socket.socket(socket.AF_UNIX) as connection:
                    connection.connect(address)
            return
        except OSError:
            time.sleep(POLL_S)


def serve(module: str, address: str, port: str) -> None:
    from waitress import serve as serve_forever  # type: ignore[import-untyped]

    sys.argv = [module]
    application = importlib.import_module(module).application
    serve_forever(application, host=address, port=int(port), threads=THREADS, ident=None)


def main(needed: str, command: list[str]) -> None:
    for address in filter(None, needed.split(",")):
        wait_for(address)
    if command[0] == "wsgi":
        serve(*command[1:])
    else:
        os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
