"""From `model.init` of a config to a file on this machine, without a download behind the user's back."""

from __future__ import annotations

import difflib
import os
from pathlib import Path
from urllib.parse import urlparse

from cvpods_ext.config.experiment import output_folder
from cvpods_ext.errors import WeightsError
from cvpods_ext.runtime.files import what_is_at

DETECTRON2_URL = "https://dl.fbaipublicfiles.com/detectron2/"
_SCRATCH = "or start from scratch with model.init=none"


def locate(init: str, experiment_folder: str | Path, smoke: bool = False) -> Path | None:
    """The file that `init` means, or None for "none" and "".

    `init` is a path (relative to the experiment folder, else to the current one), `detectron2://...`, a URL of a file
    that is already in a cache, or `experiment:<name>` for the final weights of a neighbouring experiment, of its smoke
    run if this is a `smoke` run. WeightsError says where was looked and which command or download mends it.
    """
    folder = Path(os.path.realpath(experiment_folder))
    if init in ("", "none"):
        return None
    if init.startswith("experiment:"):
        return _experiment(init.removeprefix("experiment:"), folder, smoke)
    if url := url_of(init):
        return _cached(init, url)
    return _local(init, folder)


def url_of(init: str) -> str | None:
    """The download address behind `init`, or None where it is no address."""
    if init.startswith("detectron2://"):
        return DETECTRON2_URL + init.removeprefix("detectron2://")
    return init if init.startswith(("http://", "https://")) else None


def cache_candidates(url: str) -> list[Path]:
    """Where the file of `url` may lie: $PODS_WEIGHTS, the caches of detectron2 and cvpods, and last our own."""
    relative = Path(urlparse(url).path.lstrip("/"))
    home = Path.home()
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
        Path(os.environ.get("XDG_CACHE_HOME", home / ".cache")) / "cvpods_ext/weights",
    ):
        if cache:
            candidates.append(Path(cache) / relative)
    return list(dict.fromkeys(candidates))


def _cached(init: str, url: str) -> Path:
    candidates = cache_candidates(url)
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    looked = "\n".join(f"  {candidate}" for candidate in candidates)
    raise WeightsError(
        f"the weights {init!r} are not on this machine. Looked for\n{looked}\n"
        f"Run `pods_weights fetch {init}`, or download {url}\nand put it at {candidates[-1]}, "
        f"or into a folder of yours that PODS_WEIGHTS names, {_SCRATCH}"
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
            f"or give a file with model.init=<path>, {_SCRATCH}"
        )
    return final
