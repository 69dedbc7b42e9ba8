"""What a result was made with: versions, commit, devices; and whether torch and torchvision fit each other."""

from __future__ import annotations

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import cvpods_ext
from cvpods_ext.errors import ConfigError

MINIMUM_TORCH = (2, 11)


def commit() -> str:
    """Git commit of this checkout, with "-dirty" if files were changed; "unknown" outside a checkout."""
    folder = Path(cvpods_ext.__file__).parent
    try:
        run = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return run.stdout.strip()


def device_name(device: str, count: int) -> str:
    """Like "8 x NVIDIA H200" or "2 x x86_64 CPU process"."""
    if device.startswith("cuda"):
        import torch

        return f"{count} x {torch.cuda.get_device_name()}"
    return f"{count} x {platform.machine()} CPU process"


def versions() -> dict[str, str]:
    """Versions of this package and of what it computes with."""
    names = ("torch", "torchvision", "numpy", "hotcoco", "pycocotools", "pyarrow")
    return {"python": platform.python_version(), "cvpods_ext": cvpods_ext.__version__, **{n: _version(n) for n in names}}


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def check_torch_pair() -> None:
    """Raise ConfigError when torchvision was not built for the installed torch, with the command that repairs it.

    A CPU-only torch beside a CUDA torchvision is the usual case; torchvision then lacks its compiled operators.
    """
    repair = "repair it with: pip install --force-reinstall torch torchvision"
    import torch

    if tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) < MINIMUM_TORCH:
        raise ConfigError(f"torch {torch.__version__} is older than {'.'.join(map(str, MINIMUM_TORCH))}; {repair}")
    try:
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:  # whatever a mismatched binary raises: RuntimeError, OSError, ImportError, AttributeError
        raise ConfigError(
            f"torchvision {_version('torchvision')} does not work with torch {torch.__version__} "
            f"({str(error).splitlines()[0]}); {repair}"
        ) from None
