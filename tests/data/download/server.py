"""A server on this machine that sends files whole, in ranges, or not to their end."""

import http.server
import re
import threading
from contextlib import contextmanager


class Server(http.server.ThreadingHTTPServer):
    """A server with planted faults.

    Attributes:
        files: path -> bytes.
        asked: path and Range header or None of each request.
        ends: path -> how many bytes each next answer sends before the line breaks.
        ranges: whether it knows them.
        announces: whether it sends lengths.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files, self.asked, self.ends, self.ranges, self.announces = {}, [], {}, True, True

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append((self.path, asked))
        data = self.server.files.get(self.path)
        if data is None:
            return self.send_error(404)
        start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1]) if asked and self.server.ranges else 0
        if start >= len(data):
            return self.send_error(416)
        self.send_response(206 if asked and self.server.ranges else 200)
        if self.server.announces:
            self.send_header("Content-Length", str(len(data) - start))
        self.end_headers()
        ends = self.server.ends.get(self.path) or [None]
        end = ends.pop(0)
        self.wfile.write(data[start : None if end is None else start + end])
        return None

    def log_message(self, *args: object) -> None:
        pass


@contextmanager
def serving():
    server = Server()
    threading.Thread(
        target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
    ).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
