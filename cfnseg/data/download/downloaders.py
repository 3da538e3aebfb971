"""Downloads by torchvision and cityscapesscripts, which know addresses and checksums."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path

from cfnseg.data.download.fetch import Archive, fetch
from cfnseg.data.download.unpack import unpack
from cfnseg.data.formats import voc
from cfnseg.errors import UserError, first_line, lacking

PACKAGES = ["gtFine_trainvaltest.zip", "leftImg8bit_trainvaltest.zip"]


def download_voc(root: Path, aug: bool) -> None:
    """Fetch VOC 2012, and SBD if ``aug``, with torchvision's addresses and checksums.

    Complete data are left unchanged. Raises UserError if a server cannot be reached or sends
    another file.
    """
    from torchvision.datasets import SBDataset, VOCSegmentation
    from torchvision.datasets.voc import DATASET_YEAR_DICT

    known = DATASET_YEAR_DICT["2012"]
    try:
        if not _complete(voc.pairs, root, "train", "val"):
            # torchvision cannot resume a download; it finds this file, verifies and unpacks it
            fetch(Archive(known["url"], known["filename"], digest=f"md5:{known['md5']}"), root)
            VOCSegmentation(str(root), year="2012", download=True)
        if aug and not _complete(voc.pairs_aug, root, "train"):
            fetch(
                Archive(SBDataset.url, SBDataset.filename, digest=f"md5:{SBDataset.md5}"),
                root / "sbd",
            )
            SBDataset(str(root / "sbd"), mode="segmentation", download=True)
    except (OSError, RuntimeError, tarfile.TarError) as error:
        raise UserError(
            f"{root}: torchvision could not unpack the download ({first_line(error)}). "
            f"Unpack VOCtrainval_11-May-2012.tar in {root} and SBD's benchmark.tgz in {root} "
            "by hand"
        ) from None


def _complete(read: Callable, root: Path, *splits: str) -> bool:
    try:
        return all(read(root, split) for split in splits)
    except UserError:
        return False


def download_cityscapes(root: Path) -> None:
    """Fetch and unpack images and fine annotations in ``root``; existing zips are kept.

    cityscapesscripts asks for name and password, and stores them only on request. Raises UserError
    with the manual steps if it is not installed or the download fails.
    """
    if missing := [name for name in PACKAGES if not (root / name).is_file()]:
        _download_zips(root, missing)
    for name in PACKAGES:
        unpack(root / name, root)


def _download_zips(root: Path, names: list[str]) -> None:
    by_hand = (
        "By hand: register at https://www.cityscapes-dataset.com (free for research), "
        f"save {' and '.join(names)} in {root}, and run the same command again"
    )
    try:
        from cityscapesscripts.download import downloader
    except ImportError:
        error = lacking("Cityscapes' downloader", "cityscapes")
        raise UserError(f"{error}. {by_hand}") from None
    part = root / "part"  # the downloader names files before they are complete
    try:
        part.mkdir(parents=True, exist_ok=True)
        session = downloader.login()
        for name in names:
            downloader.download_packages(
                session=session, package_names=[name], destination_path=str(part), resume=True
            )
            (part / name).replace(root / name)
    except EOFError:
        raise UserError(
            f"Cityscapes asks for a name and a password: run this in a terminal. {by_hand}"
        ) from None
    except Exception as error:  # it raises Exception itself, and what requests raises
        raise UserError(
            f"the Cityscapes download failed ({first_line(error)}). The same command continues "
            f"what lies in {part}; remove that folder to start afresh. {by_hand}"
        ) from None
    part.rmdir()
