"""Leaving the process group: a finished run must end with status 0."""

import subprocess
import sys

PROCESSES = """
import os, socket, sys
import torch
import torch.distributed as torch_dist
from cvpods_ext.runtime import dist

torch.set_num_threads(1)
sys.setswitchinterval(100)  # no thread gets the interpreter unless this one lets go of it
for trial in range(12):
    with socket.create_server(("127.0.0.1", 0)) as server:
        free_port = str(server.getsockname()[1])
    os.environ.update(WORLD_SIZE="2", MASTER_ADDR="127.0.0.1", MASTER_PORT=free_port)
    children = []
    for rank in range(2):
        child = os.fork()
        if child == 0:
            os.environ.update(RANK=str(rank))
            with dist.process_group("cpu"):
                kept = torch_dist.group.WORLD  # as DTensor's caches do
                for _ in range(4):
                    own, gathered = torch.ones(1000), [torch.empty(1000) for _ in range(2)]
                    torch_dist.all_gather(gathered, own)
                del own, gathered
            sys.exit(0)
        children.append(child)
    for child in children:
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_process_ends_cleanly_although_something_keeps_the_group():
    """Without the pause after leaving, one process in six aborts here: all 24 survive once in 80 runs."""
    run = subprocess.run([sys.executable, "-c", PROCESSES], capture_output=True, text=True, timeout=600)
    assert run.stdout.split() == ["0"] * 24, run.stderr
