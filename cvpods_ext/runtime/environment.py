"""What a result was made with: versions, commit, devices; and whether torch and torchvision fit each other."""

from __future__ import annotations

import os
import platform
import shutil
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
    return {
        "python": platform.python_version(),
        "cvpods_ext": cvpods_ext.__version__,
        **{n: _version(n) for n in names},
    }


def devices() -> dict[str, str]:
    """What this machine computes with: system, cores, memory, and every GPU with what drives it."""
    import torch

    found = {
        "commit": commit(),
        "system": platform.platform(),
        "cores": str(os.cpu_count()),
        "memory": f"{_bytes_of_memory() / 2**30:.0f} GiB",
        "torch built for": f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU",
    }
    if torch.cuda.is_available():
        from torch.cuda import nccl

        found["cuDNN, NCCL"] = f"{torch.backends.cudnn.version()}, {'.'.join(map(str, nccl.version()))}"
        for index in range(torch.cuda.device_count()):
            card = torch.cuda.get_device_properties(index)
            capability = f"compute capability {card.major}.{card.minor}"
            found[f"GPU {index}"] = f"{card.name}, {card.total_memory / 2**30:.0f} GiB, {capability}"
    return found


def problems() -> list[str]:
    """Known bad combinations and settings on this machine, each with its remedy."""
    import torch

    found = []
    try:
        check_torch_pair()
    except ConfigError as error:
        found.append(str(error))
    has_card = Path("/dev/nvidia0").exists()
    if has_card and torch.version.cuda and not torch.cuda.is_available():
        found.append(
            "torch sees none of the GPUs of this machine: check nvidia-smi, the driver and CUDA_VISIBLE_DEVICES"
        )
    if has_card and not torch.version.cuda:
        found.append("this machine has an NVIDIA GPU but torch is a CPU build: reinstall torch from pytorch.org")
    if torch.cuda.is_available():
        built, card = torch.cuda.get_arch_list(), torch.cuda.get_device_capability()
        if not any(int(arch[3:].rstrip("af")) <= 10 * card[0] + card[1] for arch in built if arch.startswith("sm_")):
            found.append(f"this torch has no kernels for compute capability {card[0]}.{card[1]} (only {built})")
    shared = shutil.disk_usage("/dev/shm").total if Path("/dev/shm").exists() else None
    if shared is not None and shared < 1 << 30:
        found.append(
            f"/dev/shm has only {shared / 2**20:.0f} MiB, loader processes may die: give the container --shm-size=8g"
        )
    return found


def _bytes_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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
    except (
        Exception
    ) as error:  # whatever a mismatched binary raises: RuntimeError, OSError, ImportError, AttributeError
        raise ConfigError(
            f"torchvision {_version('torchvision')} does not work with torch {torch.__version__} "
            f"({str(error).splitlines()[0]}); {repair}"
        ) from None
