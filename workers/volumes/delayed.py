"""A server whose answers come later, as from far away: a relay in front of it, in its host's agent.

It delays what comes from the server, whole, and limits it in no other way. It ends with the agent.
"""

import contextlib
import queue
import socket
import threading
import time

from workers.operations import operation

_CHUNK_BYTES = 1 << 18

_relays: dict[int, socket.socket] = {}


@operation
def start(address: str, port: int, delay_ms: int) -> int:
    """Relay to the server at this port of the same address; returns the relay's port, by which `end` names it."""
    listening = socket.create_server((address, 0))
    relayed = int(listening.getsockname()[1])
    _relays[relayed] = listening
    threading.Thread(target=_accept, args=(listening, (address, port), delay_ms / 1e3), daemon=True).start()
    return relayed


@operation
def end(port: int) -> None:
    """Take no more connections, those there are go when one of their ends does; harmless when it has ended."""
    listening = _relays.pop(port, None)
    if listening is not None:
        with contextlib.suppress(OSError):  # wakes who waits for a connection
            listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def _accept(listening: socket.socket, server: tuple[str, int], delay_s: float) -> None:
    with contextlib.suppress(OSError):  # closed: the relay has ended
        while True:
            client, _ = listening.accept()
            threading.Thread(target=_relay, args=(client, server, delay_s), daemon=True).start()


def _relay(client: socket.socket, address: tuple[str, int], delay_s: float) -> None:
    answers: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()
    # a server that has ended has nothing to answer: whoever asked sees the connection close
    with contextlib.suppress(OSError), client, socket.create_connection(address) as server:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threads = [
            threading.Thread(target=work, daemon=True)
            for work in (lambda: _ask(client, server), lambda: _collect(server, answers, delay_s))
        ]
        for thread in threads:
            thread.start()
        _answer(client, answers)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def _ask(client: socket.socket, server: socket.socket) -> None:
    with contextlib.suppress(OSError):  # whichever end goes, the other is told by `_relay`
        while asked := client.recv(_CHUNK_BYTES):
            server.sendall(asked)
        server.shutdown(socket.SHUT_WR)


def _collect(server: socket.socket, answers: "queue.SimpleQueue[tuple[float, bytes]]", delay_s: float) -> None:
    """An answer of no bytes is the last one."""
    answer = b"first"
    while answer:
        try:
            answer = server.recv(_CHUNK_BYTES)
        except OSError:
            answer = b""
        answers.put((time.monotonic() + delay_s, answer))


def _answer(client: socket.socket, answers: "queue.SimpleQueue[tuple[float, bytes]]") -> None:
    with contextlib.suppress(OSError):
        while True:
            due_s, answer = answers.get()
            time.sleep(max(0.0, due_s - time.monotonic()))
            if not answer:
                return
            client.sendall(answer)
