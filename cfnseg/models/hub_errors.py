"""Errors of the Hugging Face Hub's client as one line, which never holds a token."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from urllib.parse import urlsplit

from cfnseg.errors import UserError


@contextlib.contextmanager
def one_line(what: str, repo: str, *, writes: bool = False) -> Iterator[None]:
    """Context in which an error of the hub's client becomes a `UserError` without any token.

    Args:
        what: the start of the message.
        repo: "user/name".
        writes: the work changes the repository.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # the client raises its HTTP library's errors too
        raise UserError(f"{what}: {_explained(error, repo, writes)}") from None


def _explained(error: BaseException, repo: str, writes: bool) -> str:
    """What happened, and what to do."""
    from huggingface_hub import constants, errors

    url = urlsplit(constants.ENDPOINT)
    host = url.netloc.rpartition("@")[2]  # a mirror's address may hold a password
    page = f"{url.scheme}://{host}/{repo}"
    if isinstance(error, errors.HFValidationError):
        return f"not the name of a repository ({_text(error)})"
    cause = error.__cause__
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        if constants.HF_HUB_OFFLINE:
            kept = "" if writes else "not in the cache, and "
            return f"{kept}HF_HUB_OFFLINE is set, which forbids to connect"
        reason = f" ({_text(cause)})" if cause else ""
        return f"{host} could not be reached{reason}, and the cache does not have it"
    if isinstance(error, RuntimeError) and cause:  # "Error while uploading"
        return _explained(cause, repo, writes)
    if isinstance(error, errors.GatedRepoError):
        return f"its owner grants access on request: ask at {page}, then log in (hf auth login)"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"no such revision; {page} lists branches and tags"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, errors.RepositoryNotFoundError):
        private = (
            "or one that your token may not read"
            if logged_in()
            else "or a private one, for which you have to log in (hf auth login, or HF_TOKEN)"
        )
        return f"no such repository on {host}, {private}"
    if status == 401:
        return f"{host} refused the token ({_text(error)}); log in anew: hf auth login, or HF_TOKEN"
    if status == 403:
        return f"{host} forbids it ({_text(error)}); " + (
            "the token needs the permission to write, and the name must be yours or your "
            "organisation's"
            if writes
            else "the token needs the permission to read it"
        )
    if status:
        return f"{host} answered {status} ({_text(error)})"
    if isinstance(error, ValueError) and writes:
        return f"{host} refused the card ({_text(error)})"
    if getattr(error, "filename", None):  # a folder of this machine
        return _text(error)
    return f"{host} could not be reached, or the transfer broke off ({_text(error)})"


def _text(error: BaseException) -> str:
    """An error's text, or what the server said, as a line without a token; its type without one."""
    text = getattr(error, "server_message", None) or str(error) or type(error).__name__
    return " ".join(without_token(text).split())[:300]


def logged_in() -> bool:
    """Is there a token?"""
    from huggingface_hub import get_token

    try:
        return bool(get_token())
    except Exception:  # of a login service
        return False


def without_token(text: str) -> str:
    """``text`` with *** for the token, for whatever looks like one, and for a header that holds
    one."""
    from huggingface_hub import get_token

    with contextlib.suppress(Exception):  # a login service may fail
        text = text.replace(get_token() or "\0", "***")
    return re.sub(r"hf_[A-Za-z0-9]+|(?<=Bearer ).*", "***", text, flags=re.S)
