"""HTTP/1.1 on the loopback: reads requests, has them answered, and misbehaves on the wire where a fault says so."""

import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

from tests.emulator.messages import Reply, Request, Stream


class Answering(Protocol):
    """What answers the requests."""

    def reply(self, request: Request) -> Reply:
        """Return what to send for a request."""


class Server(ThreadingHTTPServer):
    """A server whose connections can be reset, and which leaves no socket and no thread behind."""

    daemon_threads = False
    request_queue_size = 64

    def __init__(self, answering: Answering, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.answering = answering
        self.closing = threading.Event()
        self.connections: set[socket.socket] = set()
        self.resets: set[socket.socket] = set()
        self.under_way, self.most_under_way = 0, 0
        self._counting = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, then serve it in a thread."""
        self.connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """End a connection, politely unless it is to be reset."""
        self.connections.discard(request)
        if request in self.resets:
            self.resets.discard(request)
            # Zero seconds of lingering make close() send RST in place of FIN.
            request.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_request(request)
        else:
            super().shutdown_request(request)

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a request as under way; `most_under_way` is how many there ever were at a time."""
        with self._counting:
            self.under_way += 1
            self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            yield
        finally:
            with self._counting:
                self.under_way -= 1

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of clients that hang up."""

    def stop(self) -> None:
        """Stop listening, hang up on everybody and wait for all threads."""
        self.closing.set()
        self.shutdown()
        self._thread.join()
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # closed by its thread meanwhile
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One connection: requests one after the other."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one piece

    def handle_any(self) -> None:
        """Read a request, have it answered, send the answer."""
        request = self._read()
        if request is None:
            self.close_connection = True
            return
        # Over before the answer leaves: whoever has it may send the next request at once.
        with self.server.counted():
            reply = self.server.answering.reply(request)
            if reply.delay:
                self.server.closing.wait(reply.delay)
        if reply.way == "reset":
            self.close_connection = True
            self.server.resets.add(self.connection)
            return
        if reply.way == "whole":
            request.status = reply.status
        self._send(reply)

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = handle_any

    def _read(self) -> Request | None:
        """Return the request, None where the client was gone before its end: half an upload is none."""
        parts = urlsplit(self.path)
        headers = {name.lower(): value for name, value in self.headers.items()}
        length = int(headers.get("content-length", 0))
        body = self.rfile.read(length)
        if len(body) < length:
            return None
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        return Request(self.command, unquote(parts.path), query, headers, body, time.time())

    def _send(self, reply: Reply) -> None:
        pieces = reply.pieces()
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        if pieces and "Content-Type" not in reply.headers:
            self.send_header("Content-Type", reply.content_type())
        if isinstance(reply.body, Stream):
            self.send_header("Transfer-Encoding", "chunked")
            pieces = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (*pieces, b"")]
        elif reply.status != 204:
            self.send_header("Content-Length", str(sum(map(len, pieces))))
        if reply.way == "cut":
            self.send_header("Connection", "close")
            whole = b"".join(pieces)
            pieces = [whole[: len(whole) // 2]]
        self.end_headers()
        for piece in pieces:
            self.wfile.write(piece)
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Keep quiet."""
