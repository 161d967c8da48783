"""A publisher of weights on this computer that breaks off, refuses, lies and waits."""

import hashlib
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

CONTENT = bytes(range(256)) * 20_000
DIGEST = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT; what it does wrong can be set.

    Attributes
    ----------
    cut_after : int
        Bytes after which it hangs up; 0 for never.
    ranges : bool
        Whether it can go on in the middle.
    shift : int
        How far it goes on from the place that was asked for.
    token, tag, redirect : str
        What it asks for, what it calls the file, and where it sends everybody; empty for nothing.
    pause : float
        Seconds after each megabyte.
    asked : list of str
        Ranges asked for, in order.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.cut_after, self.ranges, self.shift, self.pause = 0, True, 0, 0.0
        self.token = self.tag = self.redirect = ""
        self.asked: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/model.pt"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        given = self.headers.get("Range", "")
        self.server.asked.append(given)
        if self.path == "/gone":
            self.send_error(404)
        elif self.server.redirect:
            self.send_response(302)
            self.send_header("Location", self.server.redirect)
            self.end_headers()
        elif self.server.token and self.headers.get("Authorization") != f"Bearer {self.server.token}":
            self.send_error(401)
        else:
            self._send(given)

    def _send(self, given: str) -> None:
        same = self.headers.get("If-Range", self.server.tag) == self.server.tag
        start = int(given.removeprefix("bytes=").rstrip("-")) if given and self.server.ranges and same else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        if self.server.tag:
            self.send_header("ETag", self.server.tag)
        if start:
            begin = start + self.server.shift
            self.send_header("Content-Range", f"bytes {begin}-{len(CONTENT) - 1}/{len(CONTENT)}")
        self.end_headers()
        stop = self.server.cut_after or len(CONTENT)
        for at in range(start, stop, 1_000_000):
            self.wfile.write(CONTENT[at : min(at + 1_000_000, stop)])
            time.sleep(self.server.pause)
        if stop < len(CONTENT):
            self.connection.close()

    def log_message(self, *args: object) -> None:
        pass
