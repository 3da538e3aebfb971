"""Cityscapes through its own downloader, which needs an account and compares the checksums that the server gives."""

from __future__ import annotations

from pathlib import Path

from cfnseg.data.prepare.unpack import unpack
from cfnseg.errors import UserError, first_line

PACKAGES = ["gtFine_trainvaltest.zip", "leftImg8bit_trainvaltest.zip"]


def get_cityscapes(root: Path) -> None:
    """Fetch and unpack the images and fine annotations in ``root``; zips that lie there are not fetched again.

    Name and password are asked for by cityscapesscripts, which keeps them only if told so; nothing of ours sees them.
    Raises UserError if it is not installed or the download fails, with what to do by hand.
    """
    if lacking := [name for name in PACKAGES if not (root / name).is_file()]:
        _download(root, lacking)
    for name in PACKAGES:
        unpack(root / name, root)


def _download(root: Path, names: list[str]) -> None:
    by_hand = (f"By hand: register at https://www.cityscapes-dataset.com (free for research), save {' and '.join(names)} in {root}, "
               "and run the same command again")
    try:
        from cityscapesscripts.download import downloader
    except ImportError:
        raise UserError(f'Cityscapes\' downloader is not installed: pip install -e ".[cityscapes]". {by_hand}') from None
    part = root / "part"  # its downloader gives files their names before they are whole
    try:
        part.mkdir(parents=True, exist_ok=True)
        session = downloader.login()
        for name in names:
            downloader.download_packages(session=session, package_names=[name], destination_path=str(part), resume=True)
            (part / name).replace(root / name)
    except EOFError:
        raise UserError(f"Cityscapes asks for a name and a password: run this in a terminal. {by_hand}") from None
    except Exception as error:  # it raises Exception itself, and all that requests does
        raise UserError(f"the Cityscapes download failed ({first_line(error)}). The same command continues what lies in {part}; "
                        f"remove that folder to start afresh. {by_hand}") from None
    part.rmdir()
