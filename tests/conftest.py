"""Settings of the whole suite: two threads, so that results and times do not depend on the machine's size."""

import os
import tempfile

# Before torch is imported: threads that wait must not spin, or tests starve each other on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import torch
from hypothesis import settings

# How long an example takes says nothing on a machine that other work shares.
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
torch.set_num_threads(2)
# Annotation caches of the tests lie neither beside the reference data nor in the user's home.
_cache = tempfile.TemporaryDirectory(prefix="pods-tests-")
os.environ["PODS_CACHE"] = _cache.name
