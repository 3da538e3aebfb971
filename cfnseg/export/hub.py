"""Weights and their card on the Hugging Face Hub: push, or write what would be pushed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from cfnseg import __version__
from cfnseg.errors import UserError
from cfnseg.export.card import model_card
from cfnseg.export.origin import find_origin
from cfnseg.models.hub_errors import logged_in, one_line
from cfnseg.models.hub_file import FILE, PREFIX, REPO, hub, is_hub_name
from cfnseg.models.weights import load
from cfnseg.report.text import write_text
from cfnseg.storage import write_atomic

CARD = "README.md"


def push_to_hub(weights: str | Path, repo: str, *, private: bool = False, license: str = "") -> str:
    """Upload a weights file and its card to a repository of the Hugging Face Hub, in one commit.

    The repository gets two files: ``model.safetensors``, the weights file as it is, and
    ``README.md``, see `cfnseg.export.card.model_card`. Both replace what it has under these names;
    its history keeps that. Nothing else of it changes, and nothing of the run folder is sent.

    Args:
        weights: a weights file of a model of cfnseg.
        repo: "user/name"; made if it does not exist.
        private: make it private. One that exists and is public is refused.
        license: the hub's identifier, such as "cc-by-nc-4.0"; "" = the card says unknown.

    Returns:
        The page's address.

    Raises:
        UserError: weights that `cfnseg.load` refuses, another form of name, no token, no permission
            to write, no connection, or an upload that broke off, which changes nothing there.
    """
    repo, path = _repo_of(repo), _file_of(weights)
    what = f"{path} was not pushed to {repo}"
    if not logged_in():
        raise UserError(
            f"{what}: you are not logged in; hf auth login, or HF_TOKEN with a token that may write"
        )
    from huggingface_hub import CommitOperationAdd

    card = _card(path, repo, license)
    with one_line(what, repo, writes=True):
        page = hub().create_repo(repo, private=private or None, exist_ok=True)
        if private and not hub().model_info(repo).private:
            raise UserError(
                f"{what}: it exists and is public; make it private at {page}/settings, or give "
                "another name"
            )
        files = {FILE: path, CARD: card.encode()}
        hub().create_commit(
            repo,
            [CommitOperationAdd(name, content) for name, content in files.items()],
            commit_message=f"Weights and card by cfnseg {__version__}",
        )
    print(f"{page}\nuse them: cfnseg infer photo.jpg --weights {PREFIX}{repo}")
    return str(page)


def write_page(folder: str | Path, weights: str | Path, repo: str, license: str = "") -> None:
    """Write into ``folder`` the two files that `push_to_hub` would upload; nothing is sent.

    Raises:
        UserError: as `push_to_hub`, and for a folder that cannot be written.
    """
    repo, path, folder = _repo_of(repo), _file_of(weights), Path(folder)
    card = _card(path, repo, license)
    write_atomic(folder / FILE, lambda temporary: shutil.copyfile(path, temporary))
    write_text(folder / CARD, card)
    print(f"{folder}: {FILE}, {CARD}; nothing was sent")


def _repo_of(name: str) -> str:
    repo = name.removeprefix(PREFIX)
    if not re.fullmatch(REPO, repo):
        raise UserError(f"{name!r} is no name of a repository; expected user/name", code=2)
    return repo


def _file_of(weights: str | Path) -> Path:
    if is_hub_name(weights):
        raise UserError(f"{weights} is on the hub; push takes a file of this machine", code=2)
    return Path(weights)


def _card(path: Path, repo: str, license: str) -> str:
    """The card; what it was made of is printed."""
    loaded = load(path)
    loaded.demand_softmax(path, "a model card")
    origin = find_origin(path, loaded)
    notes = [*origin.notes]
    start = loaded.settings.encoder_weights or ""
    if "/" in start:
        notes.append(f"the file's header names {start}, which others will read")
    if not license:
        data = loaded.score.get("data") or "the data"
        notes.append(f"no --license: the card says unknown; the licence of {data} may decide it")
    print("\n".join(notes), flush=True)
    return model_card(repo, loaded, origin, license.lower())
