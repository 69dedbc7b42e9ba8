"""Files of Hugging Face in the cache of huggingface_hub, so that every program on the machine finds them.

The library knows the cache and its layout, tokens and addresses; the bytes come through our downloader, which goes on
where a killed process stopped and compares the checksum that the Hub states. Imports huggingface_hub when called.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from cvpods_ext.errors import DownloadError
from cvpods_ext.modeling.weights.addresses import HUB, HubFile
from cvpods_ext.runtime import http
from cvpods_ext.runtime.download import Source, fetch

_SHA256 = re.compile(r"[0-9a-f]{64}")
_ETAG = re.compile(r"[0-9A-Za-z_-]{8,128}")


def endpoint() -> str:
    """The server that files come from: HF_ENDPOINT, such as a mirror, else Hugging Face."""
    return (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")


def cached(file: HubFile) -> Path | None:
    """The file where huggingface_hub keeps it, without a connection; None if it is not there."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(file.repo, file.path, cache_dir=_cache(), revision=file.revision)
    return Path(found) if isinstance(found, str) else None


def download(file: HubFile, size: int | None, sha256: str, by_hand: str) -> Path | None:
    """Fetch the file into the cache of huggingface_hub; None where the server states no commit, as a plain mirror.

    `size` and `sha256` are what was published, None and "" where nobody says. Raises DownloadError or StorageError.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import build_hf_headers

    token = {name.title(): value for name, value in build_hf_headers().items() if name.lower() == "authorization"}
    stated = _head(file, token, by_hand)
    etag = (stated.get("x-linked-etag") or stated.get("etag", "")).removeprefix("W/").strip('"')
    commit = stated.get("x-repo-commit", "")
    if not re.fullmatch(r"[0-9a-f]{40}", commit) or not _ETAG.fullmatch(etag):
        return None
    length = stated.get("x-linked-size", "")
    source = Source(
        file.url(endpoint(), commit),
        size if size is not None else int(length) if length.isdigit() else None,
        sha256 or (etag if _SHA256.fullmatch(etag) else ""),
        token,
        by_hand=by_hand,
        title=file.path.rpartition("/")[2],
    )
    cache = _cache()
    fetch(source, cache / repo_folder_name(repo_id=file.repo, repo_type="model") / "blobs" / etag)
    try:  # the content is there: the library gives it its name in the snapshot
        placed = hf_hub_download(
            file.repo,
            file.path,
            revision=file.revision,
            cache_dir=cache,
            endpoint=endpoint(),
            etag_timeout=http.TIMEOUT,
        )
    except Exception as error:  # of the library, or of whatever HTTP library its version uses
        reason = f"{type(error).__name__}: {str(error).splitlines()[0][:200] if str(error) else ''}"
        raise DownloadError(
            f"huggingface_hub cannot place {file.url(endpoint())} in {cache} ({reason}). {by_hand}"
        ) from None
    return Path(placed)


def _head(file: HubFile, headers: dict[str, str], by_hand: str) -> dict[str, str]:
    url = file.url(endpoint())
    try:
        return dict(http.head(url, headers, leave_host=False))
    except http.Unreachable as error:
        raise DownloadError(f"{url} is not on this machine, and there is {error}. {by_hand}") from None
    except DownloadError as error:
        raise DownloadError(f"{error}. {by_hand}") from None


def _cache() -> Path:
    """The folder of huggingface_hub, by the variables that it reads."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if os.environ.get(name):
            return Path(os.path.expandvars(os.environ[name])).expanduser()
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "huggingface"
    return Path(os.path.expandvars(home)).expanduser() / "hub"
