"""The demo's server: every request brings its image and takes its answer, so none gets another's.

No request leaves anything behind: no session, no file, no log. One computation runs at a time; a
bounded number of uploads waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cfnseg.demo.answers import MOST_BYTES, Answers, TooLarge
from cfnseg.errors import UserError, first_line
from cfnseg.streams import leave_at_once

MOST_HELD = 32  # uploads in memory: one is computed, the others wait
RETRY = "3"  # seconds
PATIENCE = 60.0  # seconds in which an upload must be here
DROPPED = 4 * MOST_BYTES  # bytes that are read of an upload that will be refused, so that the
# sender, who reads the answer last, reads it
PAGES = Path(__file__).parent / "static"
LOOK = PAGES.parents[1] / "report" / "templates" / "style.css"  # that of the reports
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
}
HEADERS = {
    "cache-control": "no-store",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; media-src 'self' blob:; connect-src 'self'; form-action 'none'; "
    "base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}


class Demo:
    """The application.

    Args:
        answers: what is asked.

    Attributes:
        held: requests that have their upload in memory, or are receiving it.
    """

    def __init__(self, answers: Answers) -> None:
        self.answers = answers
        self.held = 0
        self.turn = asyncio.Lock()  # first come, first served

    def app(self) -> ASGIApp:
        """The application for an ASGI server."""
        files = {f"/{p.name}": p for p in PAGES.iterdir() if p.suffix in KINDS}
        files |= {"/": PAGES / "index.html", "/base.css": LOOK}
        routes = [
            _file(path, file.read_bytes(), KINDS[file.suffix]) for path, file in files.items()
        ]
        for number, picture in enumerate(self.answers.examples):
            routes.append(_file(f"/examples/{number}.png", picture, "image/png"))
        routes.append(Route("/api/model", self.model))
        for work in (self.segment, self.pixel, self.branches):
            routes.append(Route(f"/api/{work.__name__}", work, methods=["POST"]))
        faults = {HTTPException: _fault, Exception: _bug}
        return _with_headers(Starlette(routes=routes, exception_handlers=faults))

    async def model(self, request: Request) -> Response:
        """What the page says of the weights."""
        return JSONResponse(self.answers.about)

    async def segment(self, request: Request) -> Response:
        """See `Answers.segment`."""
        return await self._answer(request, self.answers.segment)

    async def branches(self, request: Request) -> Response:
        """See `Answers.branches`."""
        return await self._answer(request, self.answers.branches)

    async def pixel(self, request: Request) -> Response:
        """See `Answers.pixel`."""
        try:
            x, y = (int(request.query_params[name]) for name in "xy")
        except (KeyError, ValueError):
            raise HTTPException(400, "expected a pixel, ?x=COLUMN&y=ROW") from None
        return await self._answer(request, lambda data: self.answers.pixel(data, x, y))

    async def _answer(self, request: Request, work: Callable[[bytes], bytes]) -> Response:
        """``work(upload)``, when its turn comes."""
        if self.held >= MOST_HELD:
            await _upload(request, keep=False)
            wait = {"retry-after": RETRY}
            raise HTTPException(503, f"{MOST_HELD} images wait already; try again soon", wait)
        zipped = "gzip" in request.headers.get("accept-encoding", "")
        self.held += 1
        try:
            data = await _upload(request)
            async with self.turn:
                if await request.is_disconnected():  # nobody waits for it any more
                    return Response(status_code=400)
                body = await run_in_threadpool(_done, work, data, zipped)
        except ClientDisconnect:
            return Response(status_code=400)
        except UserError as error:
            raise HTTPException(413 if isinstance(error, TooLarge) else 400, str(error)) from None
        finally:
            self.held -= 1
        encoding = {"content-encoding": "gzip"} if zipped else {}
        return Response(body, media_type="application/octet-stream", headers=encoding)


def _done(work: Callable[[bytes], bytes], data: bytes, zipped: bool) -> bytes:
    """The answer in a thread; UserError if memory is out."""
    try:
        body = work(data)
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
            raise TooLarge("this machine has not enough memory for the image") from None
        raise
    return gzip.compress(body, 1) if zipped else body


async def _upload(request: Request, keep: bool = True) -> bytes:
    """The request's body; 413 if it is too large, 408 if it takes too long."""
    size, chunks = 0, []
    try:
        async with asyncio.timeout(PATIENCE):
            async for chunk in request.stream():
                size += len(chunk)
                if keep and size <= MOST_BYTES:
                    chunks.append(chunk)
                else:
                    chunks.clear()
                if size > DROPPED:
                    break
    except TimeoutError:
        raise HTTPException(408, f"the upload was not here within {PATIENCE:.0f} s") from None
    if size > MOST_BYTES:
        raise HTTPException(413, f"the upload has more than {MOST_BYTES >> 20} MiB, the limit")
    return b"".join(chunks)


def _file(path: str, content: bytes, kind: str) -> Route:
    """A route to a file that was read when the server began."""

    async def send(request: Request) -> Response:
        return Response(content, media_type=kind)

    return Route(path, send)


async def _fault(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, error.headers)


async def _bug(request: Request, error: Exception) -> Response:
    """A fault of ours; its traceback is in the server's terminal."""
    return JSONResponse({"error": f"the server failed ({type(error).__name__})"}, 500)


def _with_headers(app: ASGIApp) -> ASGIApp:
    """``app`` with `HEADERS` in every response, errors included."""

    async def wrapped(scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await app(scope, receive, with_headers)

    return wrapped


class Server(uvicorn.Server):
    """uvicorn, which leaves signals to us: there is nothing to save, so they end it at once."""

    def __init__(self, app: ASGIApp) -> None:
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
        )
        super().__init__(config)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing."""
        yield


def listening(host: str, port: int) -> socket.socket:
    """A socket that listens at an address; UserError if there is none, or it is in use.

    Args:
        host: a name or an address of this machine.
        port: 0 takes a free one.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family, backlog=128)
    except OverflowError:
        raise UserError(f"port {port} is none; expected 0 to 65535", code=2) from None
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise UserError(
            f"the demo cannot listen at {host}, port {port} ({reason}); "
            "give another: --host 127.0.0.1 --port 0 takes a free one"
        ) from None


def serve(weights: Path, host: str, port: int, device: str) -> None:
    """Serve the demo until a signal ends it.

    Raises UserError if the address or the weights cannot be used.
    """
    with listening(host, port) as ear:
        answers = Answers(weights, device)
        names = ", ".join(answers.labels.names)
        print(f"weights: {weights} ({names}) on {answers.about['device']}")
        for address in _addresses(host, ear.getsockname()[1]):
            print(f"demo: {address}", flush=True)
        if host not in ("127.0.0.1", "::1", "localhost"):
            print("warning: anybody who reaches this machine can use the demo", file=sys.stderr)
        print("Ctrl-C ends it", flush=True)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, leave_at_once)
        asyncio.run(Server(Demo(answers).app()).serve([ear]))


def _addresses(host: str, port: int) -> list[str]:
    """Where a browser finds the demo."""
    if host in ("0.0.0.0", "::"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1", 9))  # nothing is sent; it only chooses a way out
                outside = probe.getsockname()[0]
            except OSError:
                outside = socket.gethostname()
        return [f"http://127.0.0.1:{port}", f"http://{outside}:{port}"]
    return [f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"]
