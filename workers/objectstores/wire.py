"""HTTP as uploads need it. The server is code under test: it is held to deadlines, and no redirect is followed."""

import http.client
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TypeVar

from scenarios.contract import Failed

Result = TypeVar("Result")

CONTAINER = "farm"  # of a store that is the session's own
SOCKET_TIMEOUT_S = 60.0
TRIES, PAUSE_S = 3, 0.2  # how often a request is sent at most; the first pause between, doubled each time
# What a client may hold for a passing difficulty, and sends again
_PASSING = (408, 429, 500, 502, 503, 504, 507)
_BODY_LIMIT_BYTES = 1 << 20


@dataclass(frozen=True)
class S3Access:
    """Where the same store speaks S3, and the keys to it."""

    port: int
    key: str
    secret: str


@dataclass(frozen=True)
class Endpoint:
    """Where an account is, and the token that opens it. Crosses to the observer as plain data."""

    address: str
    port: int
    account: str  # path, such as /v1/AUTH_farm
    token: str
    s3: S3Access | None = None
    container: str = CONTAINER  # that objects are put into; their segments lie in another beside it
    tls: bool = False
    ca_file: str | None = None  # with the certificates that its own is trusted by; None: the system's

    @property
    def segments(self) -> str:
        return f"{self.container}_segments"

    @classmethod
    def of(cls, data: Mapping[str, object]) -> "Endpoint":
        """From plain data."""
        fields: dict[str, object] = dict(data)
        if isinstance(s3 := fields.get("s3"), dict):
            fields["s3"] = S3Access(**s3)
        return cls(**fields)  # type: ignore[arg-type]


@dataclass(frozen=True)
class Request:
    method: str
    target: str  # path and query
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""


@dataclass(frozen=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def etag(self) -> str:
        return self.headers.get("etag", "").strip('"')


class Busy(Failed):
    """The store cannot do it now, or the connection broke: it may be tried again."""

    def __init__(self, reason: str) -> None:
        super().__init__("stack", reason)


@contextmanager
def connected(at: Endpoint, port: int) -> Iterator[http.client.HTTPConnection]:
    """A connection whose every error is the stack's: there is nothing else on this network that could fail."""
    if at.tls:
        trusted = ssl.create_default_context(cafile=at.ca_file)
        connection: http.client.HTTPConnection = http.client.HTTPSConnection(
            at.address, port, timeout=SOCKET_TIMEOUT_S, context=trusted
        )
    else:
        connection = http.client.HTTPConnection(at.address, port, timeout=SOCKET_TIMEOUT_S)
    try:
        with stack_at_fault():
            connection.connect()
            yield connection
    finally:
        connection.close()


@contextmanager
def stack_at_fault() -> Iterator[None]:
    """Raises Busy for errors of the connection."""
    try:
        yield
    except TimeoutError:
        raise Busy(f"the object store does not answer for {SOCKET_TIMEOUT_S:.0f} s") from None
    except (OSError, http.client.HTTPException) as error:
        raise Busy(f"talking to the object store: {type(error).__name__}: {str(error)[:200]}") from None


def ask(connection: http.client.HTTPConnection, request: Request) -> Answer:
    headers = {**request.headers, "Content-Length": str(len(request.body))}
    connection.request(request.method, request.target, body=request.body or None, headers=headers)
    return answer_of(connection)


def persist(connection: http.client.HTTPConnection, action: Callable[[], Result]) -> tuple[Result, int]:
    """What `action` on the connection returns, and how often it had to be tried again; raises its last Busy."""
    for again in range(TRIES - 1):
        try:
            with stack_at_fault():
                return action(), again
        except Busy:
            connection.close()  # the next request opens it anew
            time.sleep(PAUSE_S * 2**again)
    with stack_at_fault():
        return action(), TRIES - 1


def answer_of(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    body = response.read(_BODY_LIMIT_BYTES)
    if not response.isclosed():
        response.read(1)  # the end that lies behind exactly the limit
    return Answer(response.status, {name.lower(): value for name, value in response.getheaders()}, body)


def expect(answer: Answer, statuses: Sequence[int], what: str) -> Answer:
    """The answer, if it is one of these; raises Busy or Failed (stack)."""
    if answer.status in statuses:
        return answer
    said = f"{what}: {answer.status} {answer.body[:160].decode('utf-8', 'replace')!r}"
    raise Busy(said) if answer.status in _PASSING else Failed("stack", said)
