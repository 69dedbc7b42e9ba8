"""Settings of the whole suite: two threads, so that results and times do not depend on the machine's size."""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(2)
