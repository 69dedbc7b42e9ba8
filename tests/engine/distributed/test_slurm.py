import pytest

from cvpods_ext.engine.distributed.slurm import first_host, step_of

TASK = {
    "SLURM_JOB_ID": "51234",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_NODEID": "1",
}


@pytest.mark.parametrize(
    ("nodes", "first"),
    [
        ("login1", "login1"),
        ("gpu[07-09,12],login1", "gpu07"),
        ("a1,b2", "a1"),
        ("rack[3,5]-ib", "rack3-ib"),
        ("10-0-0-5", "10-0-0-5"),
    ],
)
def test_the_first_host_of_a_list(nodes, first):
    assert first_host(nodes) == first


def test_one_task_a_machine_starts_its_own_workers():
    step = step_of({**TASK, "SLURM_STEP_NUM_TASKS": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"})
    assert (step.machines, step.machine_rank, step.tasks_per_machine) == (2, 1, 1)
    assert step.url == "tcp://gpu07:31234"


def test_one_task_a_process_is_a_worker_itself():
    step = step_of({**TASK, "SLURM_STEP_NUM_TASKS": "16", "SLURM_PROCID": "11", "SLURM_LOCALID": "3"})
    assert step.worker_environment() == {
        "RANK": "11",
        "WORLD_SIZE": "16",
        "LOCAL_RANK": "3",
        "LOCAL_WORLD_SIZE": "8",
        "MASTER_ADDR": "gpu07",
        "MASTER_PORT": "31234",
    }


@pytest.mark.parametrize("outside", [{}, {"SLURM_NTASKS": "16", "SLURM_JOB_ID": "5"}, {"SLURM_STEP_NUM_TASKS": "1"}])
def test_a_shell_inside_an_allocation_is_no_task(outside):
    assert step_of(outside) is None
