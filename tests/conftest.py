"""Settings of the whole suite: two threads, so that results and times do not depend on the machine's size."""

import os
import tempfile
from collections import Counter
from contextlib import suppress

# Before torch is imported: threads that wait must not spin, or tests starve each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch
from hypothesis import settings

# How long an example takes says nothing on a machine that other work shares.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
torch.set_num_threads(2)
# Messages are compared whole, not as they are folded for some screen. The readline library, which debuggers import,
# puts COLUMNS into the environment of child processes behind Python's back.
with suppress(ImportError):
    import readline  # noqa: F401
os.environ.pop("COLUMNS", None)
os.unsetenv("COLUMNS")
# Annotation caches of the tests lie neither beside the reference data nor in the user's home.
_cache = tempfile.TemporaryDirectory(prefix="pods-tests-")
os.environ["PODS_CACHE"] = _cache.name
# No test asks the internet for anything; those of downloads use servers on loopback.
os.environ["PODS_OFFLINE"] = "1"
for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):  # which huggingface_hub reads once, loopback or not
    os.environ.pop(name, None)


def pytest_unconfigure(config):
    """The last line of a run: what passed, failed and was skipped, with the reasons of skips."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None or config.option.collectonly:
        return
    found = {kind: len(reporter.stats.get(kind, ())) for kind in ("passed", "failed", "error", "skipped", "deselected")}
    reasons = Counter(str(report.longrepr[2]).removeprefix("Skipped: ") for report in reporter.stats.get("skipped", ()))
    why = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
    line = f"{found['passed']} passed, {found['failed'] + found['error']} failed, {found['skipped']} skipped"
    line += f" ({why})" if why else ""
    reporter.write_line(f"{line}, {found['deselected']} not selected (those marked slow or gpu, unless asked for)")
