"""Unpack zips safely: no file outside the folder, no links, no partial files, resumable."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from cfnseg.data.files import is_hidden
from cfnseg.errors import UserError
from cfnseg.progress import progress


def unpack(
    archive: Path, folder: Path, place: Callable[[str], str | None] = lambda name: name
) -> None:
    """Write a zip's files below ``folder``.

    All names are checked before the first file is written. Each file gets its name after the zip's
    checksum was compared. Files that exist with their size, and hidden files, are skipped.

    Args:
        archive: the zip.
        folder: the target.
        place: a member's path -> its path below ``folder``; None = skip it.

    Raises:
        UserError: not a readable zip, a damaged member, a name outside the folder, a link, a full
            disk.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [
                i
                for i in opened.infolist()
                if not i.is_dir() and not any(map(is_hidden, _safe(i, archive).split("/")))
            ]
            files = [(i, folder / to) for i in members if (to := place(i.filename)) is not None]
            files = [
                (i, to)
                for i, to in files
                if not (to.is_file() and to.stat().st_size == i.file_size)
            ]
            folder.mkdir(parents=True, exist_ok=True)
            need, free = sum(i.file_size for i, _ in files), shutil.disk_usage(folder).free
            if need > free:
                raise UserError(
                    f"{archive} unpacks to {need / 1e9:.1f} GB, "
                    f"{folder} has {free / 1e9:.1f} GB free"
                )
            for info, target in progress(files, len(files), f"unpack {archive.name}", "files"):
                target.parent.mkdir(parents=True, exist_ok=True)
                part = target.with_name(f".{target.name}.part")
                with opened.open(info) as source, part.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                part.replace(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"{archive} is damaged or no zip ({error}). Remove it, and run the same command again"
        ) from None
    except OSError as error:
        raise UserError(
            f"{archive} could not be unpacked in {folder} ({error}). The same command continues"
        ) from None


def _safe(info: zipfile.ZipInfo, archive: Path) -> str:
    """The member's name; UserError for a link or a name outside the folder."""
    parts = PurePosixPath(info.filename).parts
    if (
        not parts
        or parts[0] == "/"
        or ":" in parts[0]
        or ".." in parts
        or "\\" in info.orig_filename
    ):
        raise UserError(
            f"{archive} holds {info.filename!r}, which leads out of its folder; "
            "nothing of it was unpacked"
        )
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UserError(f"{archive} holds the link {info.filename!r}; nothing of it was unpacked")
    return info.filename
