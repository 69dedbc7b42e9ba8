"""Weights by name: from the machine if they are there, else from where they were published, checked and kept."""

from __future__ import annotations

from pathlib import Path

from cvpods_ext.config import published_weights
from cvpods_ext.errors import DownloadError, WeightsError
from cvpods_ext.modeling.weights import hub
from cvpods_ext.modeling.weights.addresses import hub_file, is_address, place_for, url_of
from cvpods_ext.modeling.weights.locate import by_hand, find_cached, locate
from cvpods_ext.modeling.weights.reader import read
from cvpods_ext.runtime import http
from cvpods_ext.runtime.download import Source, as_text
from cvpods_ext.runtime.download import fetch as fetch_file


def obtain(init: str, experiment_folder: str | Path, smoke: bool = False) -> Path | None:
    """The file that `init` means, as `locate`; one at an address is fetched if it is not on this machine.

    Nothing is fetched where PODS_OFFLINE=1 or HF_HUB_OFFLINE=1 forbids it. Raises WeightsError or StorageError.
    """
    if is_address(init):
        return find_cached(init) or fetch(init)
    return locate(init, experiment_folder, smoke)


def fetch(init: str) -> Path:
    """Download the file at an address into the cache of the library that such files belong to; returns its path.

    WeightsError says why it cannot be had and how to do without a download: no network, a refusal, another checksum
    than published, content that is no weights file. StorageError if there is no space.
    """
    url = url_of(init)
    if url is None:
        raise WeightsError(f"{init!r} is no address; it should start with hf://, detectron2:// or https://")
    known = published_weights.stated(init)
    size, sha256 = (known.size, known.sha256) if known else (None, "")
    try:
        http.check_address(url)
        if forbidden := http.offline():
            told = f" ({as_text(size)})" if size else ""
            raise DownloadError(
                f"they are not on this machine, and {forbidden} forbids to fetch {url}{told}. {by_hand(url)}"
            )
        on_hub = hub_file(init)
        placed = hub.download(on_hub, size, sha256, by_hand(url)) if on_hub else None
        if placed is not None:
            return placed
        address = on_hub.url(hub.endpoint()) if on_hub else url
        source = Source(address, size, sha256, by_hand=by_hand(url))
        return fetch_file(source, place_for(url), None if sha256 else _require_weights)
    except DownloadError as error:
        raise WeightsError(f"the weights {init!r} cannot be had: {error}") from None


def _require_weights(file: Path) -> None:
    """WeightsError if what was sent is no weights file, such as a web page."""
    read(file)
