"""From `model.init` of a config to a file on this machine; see `fetch` for what is not here yet."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

from cvpods_ext.config import published_weights
from cvpods_ext.config.experiment import output_folder
from cvpods_ext.errors import WeightsError
from cvpods_ext.modeling.weights import hub
from cvpods_ext.modeling.weights.addresses import cache_candidates, hub_file, is_address, place_for, url_of
from cvpods_ext.runtime.files import what_is_at

_SCRATCH = "or start from scratch with model.init=none"


def locate(init: str, experiment_folder: str | Path, smoke: bool = False) -> Path | None:
    """The file that `init` means, or None for "none" and ""; nothing is downloaded.

    `init` is a path (relative to the experiment folder, else to the current one), an address (`hf://owner/repo/file`,
    `detectron2://...`, `https://...`) whose file is already in a cache, or `experiment:<name>` for the final weights of
    a neighbouring experiment, of its smoke run if this is a `smoke` run. WeightsError says where was looked and which
    command or download mends it.
    """
    folder = Path(os.path.realpath(experiment_folder))
    if init in ("", "none"):
        return None
    if init.startswith("experiment:"):
        return _experiment(init.removeprefix("experiment:"), folder, smoke)
    if is_address(init):
        return find_cached(init) or _absent(init)
    return _local(init, folder)


def find_cached(init: str) -> Path | None:
    """The file of an address where it lies on this machine: put there by hand, or by us or another program."""
    url = url_of(init)
    assert url is not None, init
    for candidate in cache_candidates(url):
        if candidate.is_file():
            return candidate
    on_hub = hub_file(init)
    return hub.cached(on_hub) if on_hub else None


def by_hand(url: str) -> str:
    """What to do where the file of `url` cannot be downloaded here."""
    place = cache_candidates(url)[-1] if hub_file(url) else place_for(url)
    mirror = "; a mirror of Hugging Face is named by HF_ENDPOINT" if hub_file(url) else ""
    return (
        f"Download {url}\nelsewhere and put it at {place}, "
        f"or into a folder of yours that PODS_WEIGHTS names, {_SCRATCH}{mirror}"
    )


def _absent(init: str) -> Path:
    url = url_of(init)
    assert url is not None, init
    looked = [f"  {candidate}" for candidate in cache_candidates(url)]
    if hub_file(init):
        looked.append("  the cache of huggingface_hub")
    raise WeightsError(
        f"the weights {init!r} are not on this machine. Looked for\n" + "\n".join(looked) + "\n"
        f"pods_train fetches them when it starts, `pods_weights fetch {init}` now. {by_hand(url)}"
    )


def _local(init: str, folder: Path) -> Path:
    given = Path(init).expanduser()
    candidates = [given] if given.is_absolute() else list(dict.fromkeys([folder / given, Path.cwd() / given]))
    for candidate in candidates:
        if candidate.is_file():
            return Path(os.path.realpath(candidate))
    looked = "\n".join(f"  {candidate} ({what_is_at(candidate)})" for candidate in candidates)
    raise WeightsError(
        f"weights file model.init={init!r} is not there. Looked for\n{looked}\n"
        f"Put it there, give another path with model.init=..., {_SCRATCH}"
    )


def _experiment(name: str, folder: Path, smoke: bool) -> Path:
    """The final weights of the experiment in the folder `../<name>`."""
    other = Path(os.path.realpath(folder.parent / name))
    if not (other / "config.py").is_file():
        siblings = [path.parent.name for path in folder.parent.glob("*/config.py")]
        close = difflib.get_close_matches(name, siblings, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise WeightsError(
            f"model.init='experiment:{name}': there is no experiment in {other}. {hint}"
            f"Name a folder beside {folder.name}, give a file with model.init=<path>, {_SCRATCH}"
        )
    final = output_folder(other, smoke=smoke) / "model_final.pth"
    if not final.is_file():
        flags = "--smoke" if smoke else "--num-gpus 8"
        raise WeightsError(
            f"{folder.name} starts from {name}, which has not been trained yet ({final} is absent). Train it first:\n"
            f"  cd {os.path.relpath(other, folder)} && pods_train {flags}\n"
            f"or give a file with model.init=<path>, {_published(name)}{_SCRATCH}"
        )
    return final


def _published(name: str) -> str:
    found = published_weights.load().get(Path(name).name)
    return f"or start from its published weights with model.init={found.address}, " if found else ""
