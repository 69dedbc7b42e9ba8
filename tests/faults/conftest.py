"""The tiny experiment and the processes that train it are shared with tests/engine."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "engine"))
