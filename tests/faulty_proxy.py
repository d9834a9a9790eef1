"""A proxy before an S3 server that misbehaves when told to: drops, stalls, answers errors, is away. What it is not told about it forwards.

    with FaultyProxy(seaweed.endpoint) as proxy:
        proxy.will(Fault(after=1000, times=3))     # the next three GETs end after 1,000 bytes of their bodies
        aws.use(S3Options(endpoint=proxy.endpoint))

The client signs for the proxy's address, which is forwarded as it is, so that signatures hold.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

_STEP = 1 << 16
_HOP_BY_HOP = ("connection", "keep-alive", "transfer-encoding")


@dataclass
class Fault:
    """What befalls the next ``times`` requests of ``method`` ("" for any) whose path and query hold ``match``."""

    method: str = "GET"
    match: str = ""
    times: int = 1
    seconds: float = 0
    """The answer comes so much later; with ``after``, the rest of its body does."""
    status: int = 0
    """Answered instead of asking the server, with ``code`` as the error's."""
    code: str = ""
    headers: dict[str, str] = field(default_factory=dict)
    after: int | None = None
    """Bytes of the body that come through; then the connection is dropped, or, with ``seconds``, stalls."""
    reaches: bool = False
    """With ``status``: the server has been asked all the same, and its answer is lost."""


class FaultyProxy:
    """A context manager; ``endpoint`` is its address. ``requests`` holds method and path of all that came, ``sent`` counts bytes of
    bodies that went out."""

    def __init__(self, target: str, latency: float = 0) -> None:
        self.requests: list[tuple[str, str]] = []
        self.sent = 0
        self.latency = latency
        """Seconds that every answer takes longer."""
        self.target = urlsplit(target)
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._away = False
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self._server.daemon_threads = True
        self._server.proxy = self  # type: ignore[attr-defined]
        self.endpoint = f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> FaultyProxy:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def will(self, *faults: Fault) -> None:
        """Adds faults; for each request the first that fits is used up."""
        with self._lock:
            self._faults += faults

    @contextmanager
    def away(self) -> Iterator[None]:
        """Every connection is closed without an answer."""
        self._away = True
        try:
            yield
        finally:
            self._away = False

    def fault(self, method: str, path: str) -> Fault | None:
        """What is to befall a request that came."""
        with self._lock:
            self.requests.append((method, path))
            if self._away:
                return Fault(after=-1)
            found = next((fault for fault in self._faults if fault.method in ("", method) and fault.match in path), None)
            if found:
                found.times -= 1
                self._faults = [fault for fault in self._faults if fault.times > 0]
            return found

    def count(self, size: int) -> None:
        with self._lock:
            self.sent += size


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def _handle(self) -> None:
        proxy: FaultyProxy = self.server.proxy  # type: ignore[attr-defined]
        fault = proxy.fault(self.command, self.path)
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size)
        if len(body) < size:
            self.close_connection = True  # the client was killed; the server would wait for the rest
            return
        time.sleep(proxy.latency)
        if fault and fault.after is None:
            time.sleep(fault.seconds)
        if fault and fault.after == -1:
            self.close_connection = True
        elif fault and fault.status:
            if fault.reaches:
                self._asked(proxy, body)[0].close()
            self._answer_error(fault)
        else:
            self._forward(proxy, body, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _handle  # noqa: N815  # names that http.server calls

    def _answer_error(self, fault: Fault) -> None:
        body = f"<Error><Code>{fault.code}</Code><Message>as the test wants it</Message></Error>".encode() if fault.code else b""
        self.send_response(fault.status)
        for name, value in {"Content-Type": "application/xml", "Content-Length": str(len(body)), **fault.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _asked(self, proxy: FaultyProxy, body: bytes) -> tuple[http.client.HTTPConnection, http.client.HTTPResponse]:
        connection = http.client.HTTPConnection(proxy.target.hostname or "", proxy.target.port, timeout=60)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in (*_HOP_BY_HOP, "expect"):
                connection.putheader(name, value)
        connection.endheaders(body)
        return connection, connection.getresponse()

    def _forward(self, proxy: FaultyProxy, body: bytes, fault: Fault | None) -> None:
        connection, answer = self._asked(proxy, body)
        try:
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in (*_HOP_BY_HOP, "date", "server", "content-length"):
                    self.send_header(name, value)
            length = answer.getheader("Content-Length")
            data = None if length is not None else answer.read()
            self.send_header("Content-Length", length if data is None else str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self._copy(proxy, answer, data, fault)
        except OSError:
            self.close_connection = True  # the client has gone
        finally:
            connection.close()

    def _copy(self, proxy: FaultyProxy, answer: http.client.HTTPResponse, data: bytes | None, fault: Fault | None) -> None:
        left = fault.after if fault and fault.after is not None else None
        for piece in [data] if data is not None else iter(lambda: answer.read(_STEP), b""):
            if left is not None and fault and len(piece) > left:
                self._write(proxy, piece[:left])
                if not fault.seconds:
                    self.close_connection = True
                    return
                time.sleep(fault.seconds)
                piece, left = piece[left:], None
            self._write(proxy, piece)
            left = left - len(piece) if left is not None else None

    def _write(self, proxy: FaultyProxy, piece: bytes) -> None:
        self.wfile.write(piece)
        self.wfile.flush()
        proxy.count(len(piece))
