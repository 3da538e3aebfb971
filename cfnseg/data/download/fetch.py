"""Fetch one file from a server: resume, verify, rename."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from cfnseg.errors import UserError, first_line

CHUNK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A file on a server.

    Attributes:
        url: its address.
        name: its local file name.
        size: bytes; 0 = not published.
        digest: "md5:<hex>" or "sha256:<hex>"; "" = not published.
    """

    url: str
    name: str
    size: int = 0
    digest: str = ""


def fetch(archive: Archive, folder: Path) -> Path:
    """The archive's file in ``folder``, downloaded if absent.

    The transfer fills ``<name>.part``, and resumes in the next attempt or call if the server offers
    ranges. Attempts go on while each adds bytes. The file is renamed once its size and checksum are
    the published ones; without them, the server's Content-Length decides.

    Raises:
        UserError: no connection, an error of the server, an interrupted transfer (the part is
            kept), another size or checksum than published (the part is removed), a folder that
            cannot be written.
    """
    target, part = folder / archive.name, folder / f"{archive.name}.part"
    by_hand = f"By hand: get {archive.url}, save it as {target}, and run the same command again"
    if target.is_file():
        if fault := _fault(archive, target):
            raise UserError(f"{target} {fault}. Remove it, and run the same command again")
        return target
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _transfer(archive, part)
    except urllib.error.HTTPError as error:
        raise UserError(
            f"{archive.url}: the server answered {error.code} {error.reason}. {by_hand}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        kept = ""
        if part.is_file():
            kept = (
                f"; {part} keeps {part.stat().st_size / 1e6:.1f} MB, the same command continues it"
            )
        reason = getattr(error, "reason", None) or first_line(error)
        raise UserError(
            f"the download of {archive.url} failed ({reason}){kept}. {by_hand}"
        ) from None
    if fault := _fault(archive, part):
        part.unlink()
        raise UserError(
            f"what {archive.url} sent {fault}; it was removed. "
            f"Run the same command again, or: {by_hand}"
        )
    part.replace(target)
    return target


def _fault(archive: Archive, path: Path) -> str:
    """How the file differs from the published one; "" if it does not."""
    if archive.size and path.stat().st_size != archive.size:
        return f"has {path.stat().st_size} bytes, published are {archive.size}"
    if archive.digest:
        kind, expected = archive.digest.split(":")
        with path.open("rb") as file:
            found = hashlib.file_digest(
                file, lambda: hashlib.new(kind, usedforsecurity=False)
            ).hexdigest()
        if found != expected:
            return f"has the {kind.upper()} {found}, published is {expected}"
    return ""


def _transfer(archive: Archive, part: Path) -> None:
    """Fill ``part``; retry while attempts add bytes, else raise the last OSError."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(archive.name, total=archive.size or None)
        while True:
            before = part.stat().st_size if part.is_file() else 0
            try:
                return _attempt(archive.url, part, before, progress, task)
            except urllib.error.HTTPError:
                raise
            except (OSError, http.client.HTTPException):
                if not part.is_file() or part.stat().st_size <= before:
                    raise


def _attempt(url: str, part: Path, start: int, progress: Progress, task: int) -> None:
    """Request the bytes from ``start`` on; ConnectionError if the server ends early."""
    ranges = {"Range": f"bytes={start}-"} if start else {}
    request = urllib.request.Request(url, headers={"User-Agent": "cfnseg", **ranges})
    try:
        response = urllib.request.urlopen(request, timeout=60)
    except urllib.error.HTTPError as error:
        if error.code == 416 and start:  # nothing left: the part is complete, or of another file
            return
        raise
    with contextlib.closing(response):
        if response.status != 206:  # the server sends the file from its first byte
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        progress.update(task, total=total, completed=start)
        with part.open("ab" if start else "wb") as file:
            while data := response.read(CHUNK):
                file.write(data)
                progress.advance(task, len(data))
    if total is not None and part.stat().st_size < total:
        raise ConnectionError(f"the transfer ended after {part.stat().st_size} of {total} bytes")
