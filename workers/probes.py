"""Probes of one machine's physical limits: operations of its agent, each bounded in time.

They are fio's and iperf3's work in the standard library, so that nothing has to be installed on a lent host:
direct I/O by several threads, and bytes over several TCP connections.
"""

import contextlib
import ctypes
import mmap
import os
import random
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scenarios.contract import Failed
from workers.operations import operation

_MIB = 1 << 20
_FILE_MIB = 128
_PASSES = 2
_PATIENCE = 4.0  # times the limit that a slow disk is waited for
_DEPTH = 4  # blocks under way at once
_SMALL_BYTES = 4096
_COPY_MIB = 128  # more than caches hold of it twice
_STRIDE_BYTES = 64 << 10
_COPYING_THREADS = 8  # as many as it takes to keep a memory bus busy
_CHUNK_BYTES = 256 << 10
_ACCEPT_TIMEOUT_S = 5.0
_START_TIMEOUT_S = 10.0
_CLONE_NEWNET = 0x40000000

_listening: dict[int, socket.socket] = {}

Move = Callable[[int, list[mmap.mmap], int], int]


@operation
def disk(path: str, limit_s: float) -> dict[str, float]:
    """What the file system of `path`, a file made for this, can do: each kind of probe of a disk.

    Passes over the file are made for `limit_s` each way, or until there are enough of them, and the best one counts.
    Every block is moved once a pass, and a pass of writes ends with its flush, so that nothing is left in a cache to be
    written over. Single small blocks are moved for a third of `limit_s` each way.
    """
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    try:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o600)
        try:
            return {
                "disk write": _best_pass(descriptor, os.pwritev, limit_s),
                "flush": _flush_us(file, limit_s / 3),
                "small write": _small_us(descriptor, os.pwritev, limit_s / 3),
                "small read": _small_us(descriptor, os.preadv, limit_s / 3),
                "disk read": _best_pass(descriptor, os.preadv, limit_s),
            }
        finally:
            os.close(descriptor)
    finally:
        file.unlink(missing_ok=True)


def _best_pass(descriptor: int, move: Move, limit_s: float) -> float:
    """MiB/s. The first pass of writes has to find room on the disk: hence a second one, unless that takes for ever."""
    began_s = time.monotonic()
    speeds: list[float] = []
    while len(speeds) < _PASSES or time.monotonic() < began_s + limit_s:
        moved_mib, took_s = _pass(descriptor, move, began_s + _PATIENCE * limit_s)
        speeds.append(moved_mib / took_s)
        if moved_mib < _FILE_MIB:
            break
    return max(speeds)


def _pass(descriptor: int, move: Move, until_s: float) -> tuple[int, float]:
    """Each block of the file once, several at a time, and what is written flushed: MiB moved, and the time it took."""

    def lane(number: int) -> int:
        with mmap.mmap(-1, _MIB) as block:  # direct I/O wants memory that begins with a page
            block.write(random.randbytes(_MIB))
            start.wait(_START_TIMEOUT_S)
            moved = 0
            for place in range(number, _FILE_MIB, _DEPTH):
                if moved and time.monotonic() > until_s:
                    break
                moved += move(descriptor, [block], place * _MIB)
            return moved

    start = threading.Barrier(_DEPTH + 1)
    with ThreadPoolExecutor(_DEPTH) as pool:
        lanes = [pool.submit(lane, number) for number in range(_DEPTH)]
        start.wait(_START_TIMEOUT_S)
        began = time.monotonic()
        moved = sum(one.result() for one in lanes)
        os.fdatasync(descriptor)
        return moved // _MIB, time.monotonic() - began


def _flush_us(file: Path, limit_s: float) -> float:
    block = random.randbytes(_SMALL_BYTES)
    descriptor = os.open(file, os.O_WRONLY)

    def flush(place: int) -> None:
        os.pwrite(descriptor, block, place)
        os.fdatasync(descriptor)

    try:
        return _quickest_us(flush, limit_s)
    finally:
        os.close(descriptor)


def _small_us(descriptor: int, move: Move, limit_s: float) -> float:
    """One small block after the other, past all caches."""
    with mmap.mmap(-1, _SMALL_BYTES) as block:
        block.write(random.randbytes(_SMALL_BYTES))
        return _quickest_us(lambda place: move(descriptor, [block], place), limit_s)


def _quickest_us(do: Callable[[int], object], limit_s: float) -> float:
    """How long it takes at best, at places far apart, as the write test's are: one that is lucky beats any middle."""
    until_s = time.monotonic() + limit_s
    quickest_s, done = float("inf"), 0
    while time.monotonic() < until_s or not done:
        place = done * _STRIDE_BYTES % (_FILE_MIB * _MIB)
        began = time.monotonic()
        do(place)
        quickest_s = min(quickest_s, time.monotonic() - began)
        done += 1
    return quickest_s * 1e6


@operation
def memory_copy(limit_s: float) -> float:
    """MiB/s that all processors copy together."""
    threads = min(os.cpu_count() or 1, _COPYING_THREADS)
    size = _COPY_MIB * _MIB // threads
    start = threading.Barrier(threads + 1)

    def lane(_: int) -> int:
        source, target = ctypes.create_string_buffer(size), ctypes.create_string_buffer(size)
        ctypes.memset(source, 1, size)  # so that it is there, as the target is after the first copy
        ctypes.memmove(target, source, size)
        start.wait(_START_TIMEOUT_S)
        until_s = time.monotonic() + limit_s
        copied = 0
        while time.monotonic() < until_s or not copied:
            ctypes.memmove(target, source, size)
            copied += size
        return copied

    with ThreadPoolExecutor(threads) as pool:
        lanes = [pool.submit(lane, number) for number in range(threads)]
        start.wait(_START_TIMEOUT_S)
        began = time.monotonic()
        copied = sum(one.result() for one in lanes)
        return copied / _MIB / (time.monotonic() - began)


@operation
def listen(address: str, namespace: str | None = None) -> int:
    """The port on which `receive` will wait; in the network namespace behind the path, if one is given."""
    if namespace is not None:
        _enter_network(namespace)  # of this request's thread alone
    waiting = socket.create_server((address, 0))
    port = int(waiting.getsockname()[1])
    _listening[port] = waiting
    return port


@operation
def receive(port: int, connections: int, limit_s: float) -> float:
    """MiB/s of all connections together, from the first of them until the last has ended."""
    with _listening.pop(port) as waiting, ThreadPoolExecutor(connections) as pool:
        waiting.settimeout(_ACCEPT_TIMEOUT_S)
        until_s = time.monotonic() + limit_s
        try:
            taken = [waiting.accept()[0] for _ in range(connections)]
        except TimeoutError:
            raise Failed("donor", "nobody reached the other end of the link") from None
        began = time.monotonic()
        received = sum(pool.map(lambda one: _drain(one, until_s), taken))
        return received / _MIB / (time.monotonic() - began)


def _drain(connection: socket.socket, until_s: float) -> int:
    buffer, received = bytearray(_CHUNK_BYTES), 0
    with connection, contextlib.suppress(TimeoutError):
        while time.monotonic() < until_s:
            connection.settimeout(max(0.01, until_s - time.monotonic()))
            got = connection.recv_into(buffer)
            if got == 0:
                break
            received += got
    return received


@operation
def echo(port: int, limit_s: float) -> None:
    """Send back every byte of one connection until it ends."""
    with _listening.pop(port) as waiting:
        waiting.settimeout(_ACCEPT_TIMEOUT_S)
        try:
            connection = waiting.accept()[0]
        except TimeoutError:
            raise Failed("donor", "nobody reached the other end of the link") from None
    with connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.settimeout(limit_s)
        while byte := connection.recv(1):
            connection.sendall(byte)


@operation
def round_trip(address: str, port: int, limit_s: float, namespace: str | None = None) -> float:
    """The quickest of many, in µs."""
    if namespace is not None:
        _enter_network(namespace)
    with socket.create_connection((address, port), timeout=_ACCEPT_TIMEOUT_S) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        until_s = time.monotonic() + limit_s
        quickest_s = float("inf")
        while time.monotonic() < until_s or quickest_s == float("inf"):
            began = time.monotonic()
            connection.sendall(b"?")
            if not connection.recv(1):
                raise Failed("donor", "the other end of the link has gone")
            quickest_s = min(quickest_s, time.monotonic() - began)
        return quickest_s * 1e6


@operation
def send(address: str, port: int, connections: int, limit_s: float, namespace: str | None = None) -> None:
    """Send as fast as it goes for `limit_s`, over several connections at once; out of `namespace`, if one is given."""
    if namespace is not None:
        _enter_network(namespace)
    with contextlib.ExitStack() as exits:
        opened = [
            exits.enter_context(socket.create_connection((address, port), timeout=_ACCEPT_TIMEOUT_S))
            for _ in range(connections)
        ]
        until_s = time.monotonic() + limit_s
        with ThreadPoolExecutor(connections) as pool:
            list(pool.map(lambda one: _fill(one, until_s), opened))


def _fill(connection: socket.socket, until_s: float) -> None:
    data = bytes(_CHUNK_BYTES)
    with contextlib.suppress(ConnectionError):  # the other end has had its time
        while time.monotonic() < until_s:
            connection.sendall(data)


def _enter_network(namespace: str) -> None:
    descriptor = os.open(namespace, os.O_RDONLY)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"cannot enter {namespace}")
    finally:
        os.close(descriptor)
