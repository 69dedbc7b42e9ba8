"""Addresses of weights: what hf://, detectron2:// and https:// mean, and where such a file lies on this machine."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote, urlparse

from cvpods_ext.errors import WeightsError

DETECTRON2_URL = "https://dl.fbaipublicfiles.com/detectron2/"
HUB = "https://huggingface.co"
SCHEMES = ("hf://", "detectron2://", "https://", "http://")
_HUB_HOSTS = ("huggingface.co", "www.huggingface.co", "hf.co")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_HF_FORM = "it should look like hf://owner/repository/folder/file.pth, with @revision behind the repository or the file"


@dataclass(frozen=True)
class HubFile:
    """A file of a model repository on Hugging Face, or on a mirror of it; `repo` is owner/name."""

    repo: str
    path: str
    revision: str = "main"

    def url(self, endpoint: str = HUB, revision: str = "") -> str:
        """Its download address at `endpoint`, of another `revision` than its own if one is given."""
        return f"{endpoint}/{self.repo}/resolve/{quote(revision or self.revision, safe='')}/{quote(self.path)}"


def is_address(init: str) -> bool:
    """Whether `init` names a file somewhere else."""
    return init.startswith(SCHEMES)


def hub_file(init: str) -> HubFile | None:
    """The file of the Hub that an address means in any form, None if it is none; WeightsError if it is broken."""
    if init.startswith("hf://"):
        return _of_scheme(init)
    parts = urlparse(init)
    if parts.scheme != "https" or parts.hostname not in _HUB_HOSTS:
        return None
    match = re.fullmatch(r"/([^/]+/[^/]+)/(?:resolve|blob)/([^/]+)/(.+)", parts.path)
    return _checked(init, match[1], unquote(match[3]), unquote(match[2])) if match else None


def url_of(init: str) -> str | None:
    """The download address behind `init`, None where it is no address; WeightsError for a broken hf://."""
    if init.startswith("detectron2://"):
        return DETECTRON2_URL + init.removeprefix("detectron2://")
    if not is_address(init):
        return None
    on_hub = hub_file(init)
    return on_hub.url() if on_hub else init


def cache_candidates(url: str) -> list[Path]:
    """Where the file of `url` may lie: $PODS_WEIGHTS, the caches of detectron2, cvpods and torch, and last our own.

    The cache of huggingface_hub is asked through that library, see `hub.cached`.
    """
    relative, home = _relative(url), Path.home()
    candidates = []
    if own := os.environ.get("PODS_WEIGHTS"):
        without_host = Path(*relative.parts[1:]) if len(relative.parts) > 1 else relative
        candidates += [Path(own) / part for part in (relative, without_host, Path(relative.name))]
    for cache in (
        os.environ.get("FVCORE_CACHE"),  # detectron2's own variable
        home / ".torch/iopath_cache",
        home / ".torch/fvcore_cache",
        os.environ.get("CVPODS_CACHE"),
        home / ".torch/cvpods_cache",
    ):
        if cache:
            candidates.append(Path(cache) / relative)
    if urlparse(url).hostname == "download.pytorch.org":
        candidates.append(_torch_hub() / relative.name)
    # Two hosts may have files of one path. The place without a host is where files were put by hand before.
    candidates += [_own_cache() / relative, _own_cache() / _host(url) / relative]
    return list(dict.fromkeys(candidates))


def place_for(url: str) -> Path:
    """Where a download of `url` goes: the cache of the library that fetches such files, else our own.

    detectron2's files go where detectron2 looks for them, torchvision's where torch.hub does.
    """
    host = urlparse(url).hostname
    if url.startswith(DETECTRON2_URL):
        cache = os.environ.get("FVCORE_CACHE") or Path.home() / ".torch/iopath_cache"
        return Path(cache).expanduser() / _relative(url)
    if host == "download.pytorch.org":
        return _torch_hub() / _relative(url).name
    return _own_cache() / _host(url) / _relative(url)


def _of_scheme(init: str) -> HubFile:
    owner, _, rest = init.removeprefix("hf://").partition("/")
    if owner in ("datasets", "spaces", "buckets"):
        raise WeightsError(f"{init!r} is in no model repository: {_HF_FORM}")
    name, _, path = rest.partition("/")
    name, _, revision = name.partition("@")
    if not revision and "@" in path.rpartition("/")[2]:
        path, _, revision = path.rpartition("@")
    return _checked(init, f"{owner}/{name}", path, unquote(revision) or "main")


def _checked(init: str, repo: str, path: str, revision: str) -> HubFile:
    parts = [*repo.split("/"), *path.split("/"), *revision.split("/")]
    bad = any(part in ("", ".", "..") or not part.isprintable() or "\\" in part for part in parts)
    if bad or not all(_NAME.fullmatch(part) for part in repo.split("/")):
        raise WeightsError(f"{init!r} is no address of a file: {_HF_FORM}")
    return HubFile(repo, path, revision)


def _relative(url: str) -> Path:
    """The path part of an address, below any folder."""
    parts = [part for part in urlparse(url).path.split("/") if part not in ("", ".", "..")]
    if not parts:
        raise WeightsError(f"{url!r} names no file; an address ends in one, such as .../model_final.pth")
    return Path(*parts)


def _host(url: str) -> str:
    return urlparse(url).hostname or "unknown"


def _own_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cvpods_ext/weights"


def _torch_hub() -> Path:
    """$TORCH_HOME/hub/checkpoints, as torch.hub finds it."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "torch"
    return Path(os.environ.get("TORCH_HOME") or cache).expanduser() / "hub/checkpoints"
