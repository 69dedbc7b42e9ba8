"""Settings of the whole suite: two threads, so that results and times do not depend on the machine's size."""

import os
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(2)
# Annotation caches of the tests lie neither beside the reference data nor in the user's home.
_cache = tempfile.TemporaryDirectory(prefix="pods-tests-")
os.environ["PODS_CACHE"] = _cache.name
