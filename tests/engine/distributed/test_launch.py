import os

import pytest

from cvpods_ext.engine.distributed.launch import choose_processes, launch, was_restarted, world_size
from cvpods_ext.errors import ConfigError, DataError


def test_num_gpus_counts_processes_on_the_cpu():
    processes = choose_processes(3, "cpu")
    assert (processes.device, processes.per_machine, world_size(processes)) == ("cpu", 3, 3)


@pytest.mark.parametrize("url", ["", "tcp://host", "host:29500"])
def test_several_machines_need_an_address_with_a_port(url):
    with pytest.raises(ConfigError, match=r"--dist-url tcp://HOST:PORT"):
        choose_processes(1, "cpu", machines=2, dist_url=url)


def test_under_torchrun_the_world_is_what_it_says(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "6")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    assert world_size(choose_processes(None, "cpu")) == 6
    assert was_restarted()


def test_a_slurm_task_per_machine_describes_the_machines(monkeypatch):
    step = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_NUM_NODES": "2", "SLURM_PROCID": "1", "SLURM_LOCALID": "0"}
    for name, value in {**step, "SLURM_NODEID": "1", "SLURM_STEP_NODELIST": "n[1-2]", "SLURM_JOB_ID": "5"}.items():
        monkeypatch.setenv(name, value)
    processes = choose_processes(2, "cpu")
    assert (processes.machines, processes.machine_rank, processes.dist_url) == (2, 1, "tcp://n1:20005")


def _fail_once(device, folder, again):
    (folder / f"{again}-{os.environ['RANK']}").touch()
    if not again and os.environ["RANK"] == "1":
        os.abort()


def _user_error(device, folder, again):
    (folder / f"{again}-{os.environ['RANK']}").touch()
    raise DataError("the json is broken")


@pytest.mark.slow
def test_a_dead_worker_starts_all_again_with_the_other_arguments(tmp_path):
    launch(_fail_once, (tmp_path, False), choose_processes(2, "cpu"), restarts=1, again=(tmp_path, True))
    assert {"False-1", "True-0", "True-1"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.slow
def test_an_error_of_the_users_is_not_tried_again(tmp_path):
    with pytest.raises(SystemExit) as status:
        launch(_user_error, (tmp_path, False), choose_processes(2, "cpu"), restarts=3, again=(tmp_path, True))
    assert status.value.code == 2
    assert not list(tmp_path.glob("True-*"))
