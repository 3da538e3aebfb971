"""``hf:user/name``: weights in a repository of the Hugging Face Hub, as a file of this machine."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cfnseg import __version__
from cfnseg.errors import UserError
from cfnseg.models.hub_errors import one_line

if TYPE_CHECKING:
    from huggingface_hub import HfApi

PREFIX = "hf:"
FILE = "model.safetensors"  # what `cfnseg push` writes; loaded where a name has no file
REPO = r"[\w.-]+/[\w.-]+"
# a pasted link, in which Path makes one slash of two, or a name without its prefix
MEANT = re.compile(rf"https?:/+[^/]+/({REPO})(?:/.*)?|({REPO})")
# slashes after the prefix: hf:// is the hub's own form
NAME = re.compile(
    rf"{PREFIX}/*(?P<repo>{REPO})(?:@(?P<revision>refs/pr/\d+|[^/@]+))?(?:/(?P<file>[^@]+))?"
)
SHOWN = 5  # files in a message


class HubName(NamedTuple):
    """A name taken apart: ``hf:<repo>[@<revision>][/<file>]``.

    Attributes:
        repo: "user/name".
        revision: a branch, a tag or a commit; None = main.
        file: a path in the repository; None = `FILE`, or the only weights file.
    """

    repo: str
    revision: str | None
    file: str | None

    def __str__(self) -> str:
        revision, file = self.revision, self.file
        return f"{PREFIX}{self.repo}{f'@{revision}' * bool(revision)}{f'/{file}' * bool(file)}"


def is_hub_name(path: str | Path) -> bool:
    """Does ``path`` name a repository of the hub, and no file of this machine?"""
    return str(path).startswith(PREFIX)


def hub_hint(path: Path) -> str:
    """The end of the error on a file that is not there, if its name looks like a repository's."""
    found = MEANT.fullmatch(str(path))
    if not found or path.suffix == ".safetensors":
        return ""
    return f"; on the Hugging Face Hub it would be {PREFIX}{found[1] or found[2]}"


def parse_hub_name(name: str | Path) -> HubName:
    """UserError (usage) if ``name`` has another form than ``hf:user/name[@revision][/file]``."""
    found = NAME.fullmatch(str(name))
    file = found and found["file"]
    if not found or (file and not file.endswith(".safetensors")):
        raise UserError(
            f"{name}: expected hf:user/name, hf:user/name@revision, or either with "
            "/file.safetensors",
            code=2,
        )
    # a branch's slash is written so, as it is in the hub's own names
    revision = (found["revision"] or "").replace("%2F", "/") or None
    return HubName(found["repo"], revision, file)


def beside(weights: Path) -> Path:
    """The file whose neighbours results of ``weights`` become: itself; for a repository of the hub
    ``<name>.safetensors`` in the current folder."""
    if not is_hub_name(weights):
        return weights
    name = parse_hub_name(weights)
    stem = name.repo.partition("/")[2]
    return Path(
        f"{stem}_{Path(name.file).stem}.safetensors" if name.file else f"{stem}.safetensors"
    )


def hub_file(name: str | Path) -> Path:
    """The weights file that ``hf:user/name[@revision][/file]`` names, downloaded where it is new.

    Without a file it is ``model.safetensors``, or the only .safetensors file of the repository.
    Without a connection it is what the hub's cache has. A file without a header of cfnseg is
    refused before its download. As in every program that uses the hub, the environment decides on
    cache, token and server: HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE.

    Raises:
        UserError: another form of name, no such repository, revision or file, no access, no
            connection, a transfer that broke, or a file that cfnseg did not write.
    """
    from huggingface_hub.errors import EntryNotFoundError

    asked = parse_hub_name(name)
    with one_line(str(asked), asked.repo):
        try:
            return _fetched(asked)
        except EntryNotFoundError:
            pass
        except Exception as error:  # no connection, in the words of any HTTP library
            if not isinstance(error, UserError) and (cached := _cached(asked)):
                return cached
            raise
        return _fetched(_only_file(asked))


def _only_file(asked: HubName) -> HubName:
    """The repository's only weights file; UserError if it has none or several, or one was named."""
    files = hub().list_repo_files(asked.repo, revision=asked.revision)
    found = [file for file in files if file.endswith(".safetensors")]
    if len(found) == 1 and not asked.file:
        return asked._replace(file=found[0])
    own = asked._replace(file=None)
    known = ", ".join(f"{own}/{file}" for file in found[:SHOWN])
    others = f"; there is {known}" if found else ", and no other .safetensors file"
    raise UserError(f"{own} has no {asked.file or FILE}{others}")


def hub() -> HfApi:
    """The hub's client; it reads the environment."""
    from huggingface_hub import HfApi

    return HfApi(library_name="cfnseg", library_version=__version__)


def _fetched(asked: HubName) -> Path:
    """The file, `FILE` without one, from the hub or its cache."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import NotASafetensorsRepoError, SafetensorsParsingError

    place = {"filename": asked.file or FILE, "revision": asked.revision}
    if not isinstance(try_to_load_from_cache(asked.repo, **place), str):
        # one request tells a foreign file, which may have gigabytes, and fails at once where the
        # download would try for half a minute
        try:
            metadata = hub().parse_safetensors_file_metadata(asked.repo, **place).metadata
            fault = "" if "cfnseg" in metadata else "has no cfnseg header"
        except (NotASafetensorsRepoError, SafetensorsParsingError):
            fault = "is corrupt or no safetensors file"
        if fault:
            whole = asked._replace(file=place["filename"])
            raise UserError(f"{whole} {fault}; it is not a file that cfnseg trained")
    return Path(hub().hf_hub_download(asked.repo, **place))


def _cached(asked: HubName) -> Path | None:
    """The only weights file that the cache has of a repository; None if a file was named."""
    from huggingface_hub import snapshot_download

    if asked.file:
        return None
    with contextlib.suppress(FileNotFoundError):
        folder = snapshot_download(
            asked.repo,
            revision=asked.revision,
            allow_patterns=["*.safetensors"],
            local_files_only=True,
        )
        found = list(Path(folder).rglob("*.safetensors"))
        return found[0] if len(found) == 1 else None
    return None
