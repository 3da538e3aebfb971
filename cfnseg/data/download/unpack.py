"""Zips into folders: nothing outside the folder, no links, each file whole or absent, continued where it stopped."""

from __future__ import annotations

import shutil
import stat
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from rich.console import Console
from rich.progress import track

from cfnseg.data.files import is_hidden
from cfnseg.errors import UserError


def unpack(archive: Path, folder: Path, place: Callable[[str], str | None] = lambda name: name) -> None:
    """Write a zip's files below ``folder``.

    All names are looked at before the first file is written. Each file is written beside and renamed, after the zip's own
    checksum of it has been compared; one that is there with its size is left alone. Hidden files are left out.

    Args:
        archive: the zip.
        folder: where.
        place: a member's path -> its path below ``folder``, or None to leave it out.

    Raises:
        UserError: no readable zip, a damaged member, a name that leads out of the folder, a link, a full disk.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            files = [(i, folder / to) for i in opened.infolist() if not i.is_dir()
                     and not any(map(is_hidden, _safe(i, archive).split("/"))) and (to := place(i.filename)) is not None]
            files = [(i, to) for i, to in files if not (to.is_file() and to.stat().st_size == i.file_size)]
            folder.mkdir(parents=True, exist_ok=True)
            need, free = sum(i.file_size for i, _ in files), shutil.disk_usage(folder).free
            if need > free:
                raise UserError(f"{archive} unpacks to {need / 1e9:.1f} GB, {folder} has {free / 1e9:.1f} GB free")
            for info, target in track(files, f"unpack {archive.name}", console=Console(stderr=True)):
                target.parent.mkdir(parents=True, exist_ok=True)
                beside = target.with_name(f".{target.name}.part")
                with opened.open(info) as source, beside.open("wb") as file:
                    shutil.copyfileobj(source, file, 1 << 20)
                beside.replace(target)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise UserError(f"{archive} is damaged or no zip ({error}). Remove it, and run the same command again") from None
    except OSError as error:
        raise UserError(f"{archive} could not be unpacked in {folder} ({error}). The same command continues") from None


def _safe(info: zipfile.ZipInfo, archive: Path) -> str:
    """The member's name; UserError if it leads out of the folder or is a link."""
    parts = PurePosixPath(info.filename).parts
    if not parts or parts[0] == "/" or ":" in parts[0] or ".." in parts or "\\" in info.orig_filename:
        raise UserError(f"{archive} holds {info.filename!r}, which leads out of its folder; nothing of it was unpacked")
    if stat.S_ISLNK(info.external_attr >> 16):
        raise UserError(f"{archive} holds the link {info.filename!r}; nothing of it was unpacked")
    return info.filename
