"""Fetches models from the Hugging Face Hub: `hf://owner/name[@revision][/folder]`.

`huggingface_hub` does the work: requests, retries, resumed downloads, credentials (`hf auth login`
or HF_TOKEN) and the cache, which other programs of this machine share. This module adds the
address, and errors in one line. No message of this module contains text from a response or a
request, since both may contain credentials.
"""

from __future__ import annotations

import glob
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from cxr_embed.errors import NotFetched, UsageError

SCHEME = "hf://"

_ADDRESS = re.compile(
    r"([\w.-]+)/([\w.-]+)(?:@([^/@\0]+))?(?:/([^@/\0]+(?:/[^@/\0]+)*))?", re.ASCII
)
_TOKEN = re.compile(r"hf_\w{16,}", re.ASCII)
# First parts of addresses on the Hub that are not models'.
_OTHER_KINDS = ("datasets", "spaces", "buckets", "kernels")


class Address(NamedTuple):
    """A model on the Hub.

    Attributes:
        repository: `owner/name`.
        revision: a branch, tag or commit; None is the default branch.
        folder: folder or file in the repository; may be empty.
    """

    repository: str
    revision: str | None
    folder: str

    def at(self, commit: str) -> str:
        """Returns the address of the same files at one commit."""
        return f"{SCHEME}{self.repository}@{commit}" + (f"/{self.folder}" if self.folder else "")


def is_address(path: str) -> bool:
    """Whether a path is an address on the Hub."""
    return path.startswith(SCHEME)


def parse(path: str) -> Address:
    """Splits an address. A slash in a revision is written `%2F`, as in `refs%2Fpr%2F1`.

    Raises:
        UsageError: it is not valid.
    """
    if _TOKEN.search(path):
        raise UsageError(
            "--model_path: this hf:// address contains a token: remove it, and log in "
            "(hf auth login) or set HF_TOKEN"
        )
    found = _ADDRESS.fullmatch(path.removeprefix(SCHEME).rstrip("/"))
    folder = (found and found[4]) or ""
    if found is None or found[1] in _OTHER_KINDS or {".", ".."} & set(folder.split("/")):
        raise UsageError(
            f"--model_path {path} is not a model's address on the Hugging Face Hub: pass "
            "hf://owner/name, hf://owner/name/folder or hf://owner/name@revision/folder"
        )
    revision = unquote(found[3]) if found[3] else None
    return Address(f"{found[1]}/{found[2]}", revision, folder)


def commit_of(path: str) -> str:
    """Returns the commit that an address names now.

    A commit in the address needs no request. If the Hub cannot be reached, it is the commit that
    the revision had when it was last looked up on this machine.

    Raises:
        UsageError: the model or the revision does not exist or may not be read.
    """
    address = parse(path)
    hub = _hub()
    try:
        return str(hub.resolve_revision(address.repository, revision=address.revision).resolved)
    except Exception as error:
        raise _explained(error, path, address.revision) from error


def is_here(path: str, commit: str, folders: Sequence[str] = ()) -> bool:
    """Whether this machine's cache holds all files that `local_copy` would return."""
    try:
        _snapshot(parse(path), commit, folders, local_files_only=True)
    except OSError:
        return False
    return True


def file_names(path: str, commit: str) -> list[str]:
    """Returns the names of the files that `local_copy` would return, relative to the address.

    Raises:
        UsageError: the Hub cannot be asked, or has no such files.
    """
    address = parse(path)
    try:
        found = _hub().snapshot_download(
            address.repository, revision=commit, allow_patterns=_patterns(address, ()), dry_run=True
        )
    except Exception as error:
        raise _explained(error, path, commit) from error
    if not found:
        raise _missing(path)
    folder = PurePosixPath(address.folder)
    names = [PurePosixPath(file.filename) for file in found]
    return [name.name if name == folder else name.relative_to(folder).as_posix() for name in names]


def local_copy(path: str, commit: str, folders: Sequence[str] = ()) -> str:
    """Returns the local folder or file of a model; downloads what the cache does not hold.

    Args:
        path: the model's address; its revision is ignored.
        commit: the commit to fetch.
        folders: the only folders to fetch, relative to the address; by default all below it.

    Raises:
        UsageError: the model cannot be downloaded, or does not hold a folder.
    """
    address = parse(path)
    try:
        local = _snapshot(address, commit, folders, local_files_only=False)
    except Exception as error:
        raise _explained(error, path, commit) from error
    for folder in folders or (".",):
        if not Path(local, folder).exists():
            raise _missing(path, folder)
    return local


def _missing(path: str, folder: str = ".") -> UsageError:
    address = parse(path)
    missing = PurePosixPath(address.folder, folder)
    return UsageError(
        f"--model_path {path} has no folder or file {missing} in {address.repository}"
    )


def _patterns(address: Address, folders: Sequence[str]) -> list[str] | None:
    wanted = [PurePosixPath(address.folder, folder).as_posix() for folder in folders or (".",)]
    patterns = [
        pattern
        for each in wanted
        if each != "."
        for pattern in (glob.escape(each), f"{glob.escape(each)}/*")
    ]
    return patterns or None


def _snapshot(address: Address, commit: str, folders: Sequence[str], **options: Any) -> str:
    # With a commit, the library makes no request for files that the cache holds.
    root = _hub().snapshot_download(
        address.repository, revision=commit, allow_patterns=_patterns(address, folders), **options
    )
    return str(Path(root, address.folder))


def _hub() -> Any:
    try:
        import huggingface_hub
        from huggingface_hub.utils import disable_progress_bars
    except ImportError as error:
        raise NotFetched(
            "--model_path hf://… needs huggingface-hub: pip install 'cxr-embed[hub]'"
        ) from error
    if not sys.stderr.isatty():
        disable_progress_bars()
    # The library itself reads the variable only once, when it is imported.
    return huggingface_hub.HfApi(endpoint=os.environ.get("HF_ENDPOINT"))


def _explained(error: Exception, path: str, revision: str | None) -> UsageError:
    """Returns an error of the library as one line, without its text."""
    from huggingface_hub import constants, errors

    if isinstance(error, UsageError):
        return error
    repository = parse(path).repository
    page = f"https://huggingface.co/{repository}"
    log_in = "log in with hf auth login, or set HF_TOKEN"
    cause: BaseException = error
    while cause.__cause__ and not isinstance(cause, errors.HfHubHTTPError):
        cause = cause.__cause__
    status = getattr(getattr(cause, "response", None), "status_code", 0)
    if isinstance(cause, errors.GatedRepoError):
        why = f"is gated: accept its licence at {page}, then {log_in}"
    elif isinstance(cause, errors.RepositoryNotFoundError):
        why = (
            f"does not exist, or is private or gated: if {page} exists, accept its licence there, "
            f"then {log_in}"
        )
    elif isinstance(cause, errors.RevisionNotFoundError):
        why = (
            f"has no revision {revision or 'main'}: pass a branch, a tag or a commit of "
            f"{page}/commits"
        )
    elif status in (401, 403):
        why = f"may not be read with these credentials: accept its licence at {page}, then {log_in}"
    elif isinstance(cause, errors.OfflineModeIsEnabled) or constants.is_offline_mode():
        why = "is not in this machine's cache, and HF_HUB_OFFLINE forbids to fetch it"
    elif status:
        why = f"cannot be fetched: {_host()} answered with status {status}; try again later"
    elif isinstance(error, OSError) and error.errno is not None:
        why = f"cannot be stored in the cache {constants.HF_HUB_CACHE}: {error.strerror}"
    else:
        why = (
            f"cannot be fetched: {_host()} cannot be reached ({type(cause).__name__}), and this "
            "machine's cache does not hold it; check the connection and HF_ENDPOINT"
        )
    return NotFetched(f"--model_path {path} {why}")


def _host() -> str:
    return urlsplit(_hub().endpoint).hostname or "the Hub"
