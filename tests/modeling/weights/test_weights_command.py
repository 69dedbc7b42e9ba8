"""pods_weights on real files, as a user runs it."""

import http.server
import json
import shutil
import threading

import pytest
import torch

from cvpods_ext.cli import weights
from cvpods_ext.modeling.weights import locate, read

HEAD = "roi_heads.box_predictor.cls_score"


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Run pods_weights in an empty folder; returns exit status, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        monkeypatch.setattr("sys.argv", ["pods_weights", *map(str, arguments)])
        status = 0
        try:
            weights.main()
        except SystemExit as stop:
            status = stop.code
        output = capsys.readouterr()
        return status, output.out, output.err

    return run


def save(path, **state):
    torch.save({"model": {name.replace("__", "."): value for name, value in state.items()}, "iteration": 7}, path)


def test_inspect_shows_modules_shapes_and_metadata(command):
    save("m.pth", backbone__fpn_output2__weight=torch.zeros(4, 4, 3, 3), backbone__fpn_output2__bias=torch.zeros(4))
    status, out, _ = command("inspect", "m.pth")
    assert status == 0
    assert "2 tensors, 148 values" in out
    assert "iteration: 7" in out
    assert "[4, 4, 3, 3]" in out
    assert command("inspect", "m.pth", "--all", "--filter", "bias")[1].count("backbone") == 1


def test_inspect_says_what_foreign_weights_expect(command):
    save("r.pth", layer1__0__conv1__weight=torch.zeros(4, 4, 1, 1))
    out = command("inspect", "r.pth")[1]
    assert "resnet family" in out
    assert "RGB" in out
    assert "res2.0" in out


def test_inspect_ranks_experiments_by_fit(command, tmp_path):
    for name, width in (("wide", 8), ("narrow", 4)):
        folder = tmp_path / "zoo" / name
        folder.mkdir(parents=True)
        (folder / "config.py").write_text(
            "from cvpods_ext.config.detection import DetectionConfig\nconfig = DetectionConfig()\n"
        )
        (folder / "net.py").write_text(
            "import numpy, torch\n"
            "def build_model(cfg):\n"
            f"    model = torch.nn.Sequential(torch.nn.Linear({width}, 2))\n"
            "    model.register_buffer('counts', torch.from_numpy(numpy.ones(2)))\n"  # on no device but its own
            "    return model\n"
        )
    torch.save({**torch.nn.Sequential(torch.nn.Linear(4, 2)).state_dict(), "counts": torch.ones(2)}, "m.pth")
    out = command("inspect", "m.pth", "--fits", "zoo")[1]
    rows = [line.split() for line in out.splitlines() if line.lstrip().startswith(("wide", "narrow"))]
    assert rows == [["narrow", "3", "0", "0", "0", "0"], ["wide", "2", "0", "1", "0", "0"]]
    assert "\n narrow " in command("inspect", "m.pth", "--fits", "zoo/narrow")[1]  # one experiment is named, not "."
    save("vit.pth", **{"blocks.0.attn.qkv.weight": torch.ones(3)})
    assert "narrow and 1 more: another architecture" in command("inspect", "vit.pth", "--fits", "zoo")[1]
    shutil.copytree(tmp_path / "zoo" / "wide", tmp_path / "zoo" / "broken")
    (tmp_path / "zoo" / "broken" / "config.py").write_text("nothing = 1\n")
    out = command("inspect", "m.pth", "--fits", "zoo")[1]
    assert "\n narrow " in out
    assert "broken: cannot be built here: " in out


def test_diff_of_equal_files_is_silent_success_whatever_their_format(command):
    save("a.pth", fc__weight=torch.tensor([[1.0, float("nan")]]))
    assert command("convert", "a.pth", "b.safetensors")[0] == 0
    status, out, _ = command("diff", "a.pth", "b.safetensors")
    assert (status, out.strip()) == (0, "1 tensors are equal, 0 differ")


def test_diff_names_what_differs(command):
    save("a.pth", same=torch.ones(1), moved=torch.ones(2), shape=torch.ones(2), gone=torch.ones(1))
    save("b.pth", same=torch.ones(1), moved=torch.tensor([1, 1.5]), shape=torch.ones(3), new=torch.ones(1))
    status, out, _ = command("diff", "a.pth", "b.pth")
    assert status == 1
    assert "1 tensors are equal, 4 differ" in out
    rows = {line.split()[0]: line for line in out.splitlines()[2:]}
    assert "0.5" in rows["moved"]
    assert "[3] float32" in rows["shape"]
    assert set(rows) == {"moved", "shape", "gone", "new"}


def test_convert_carries_shared_classes_over(command):
    for name, categories in (("a.json", ["cat", "dog", "cow"]), ("b.json", ["dog", "hat", "cat"])):
        rows = [{"id": 10 + i, "name": category} for i, category in enumerate(categories)]
        with open(name, "w") as file:
            json.dump({"categories": rows}, file)
    save("a.pth", **{f"{HEAD}.bias".replace(".", "__"): torch.tensor([1.0, 2.0, 3.0, 9.0])})
    status, out, _ = command(
        "convert", "a.pth", "b.safetensors", "--from-categories", "a.json", "--to-categories", "b.json"
    )
    assert status == 0
    assert "2 of 3 classes keep their rows" in out
    assert read("b.safetensors").state[f"{HEAD}.bias"].tolist() == [2, 0, 1, 9]


def test_convert_between_data_sets_known_by_name(command):
    save("coco.pth", **{f"{HEAD}.bias".replace(".", "__"): torch.arange(81.0)})
    status, out, _ = command(
        "convert",
        "coco.pth",
        "l.safetensors",
        "--from-categories",
        "coco_2017_train",
        "--to-categories",
        "lvis_v1_train",
    )
    assert status == 0
    converted = read("l.safetensors").state[f"{HEAD}.bias"]
    assert converted.shape == (1204,)
    assert 40 <= int((converted[:-1] > 0).sum()) <= 80, out


def test_convert_takes_the_averaged_weights_on_request(command):
    torch.save({"model": {"w": torch.zeros(1)}, "ema_state": {"w": torch.ones(1)}}, "m.pth")
    command("convert", "m.pth", "m.safetensors", "--ema")
    assert read("m.safetensors").state["w"].item() == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("inspect", "absent.pth"), "does not exist"),
        (("convert", "m.pth", "m.pth"), "must end in .safetensors"),
        (("convert", "m.pth", "m.safetensors", "--ema"), "no averaged weights"),
        (("convert", "m.pth", "m.safetensors", "--to-categories", "coco_2017_train"), "belong together"),
        (("convert", "m.pth", "m.safetensors", "--to-categories", "x.csv", "--from-categories", "y.json"), "y.json"),
        (("inspect", "m.pth", "--fits", "."), "no experiment"),
        (("inspect", "m.pth", "--filter", "rsw5"), "no tensor whose name contains 'rsw5'"),
        (("fetch", "R-50.pkl"), "is no address"),
    ],
)
def test_mistakes_end_with_status_2_one_message_and_no_file(command, tmp_path, arguments, words):
    save("m.pth", w=torch.zeros(1))
    status, _, err = command(*arguments)
    assert status == 2
    assert words in err
    assert "Traceback" not in err
    assert [path.name for path in tmp_path.iterdir()] == ["m.pth"]


def test_fetch_puts_a_file_where_locate_finds_it(command, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("PODS_WEIGHTS", "PODS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    save("w.pth", w=torch.ones(1))
    (tmp_path / "page.pth").write_text("<html>not found, but with status 200</html>")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_port}"
    try:
        assert command("fetch", f"{root}/w.pth")[0] == 0
        found = locate(f"{root}/w.pth", tmp_path)
        assert found is not None
        assert read(found).state["w"].item() == 1
        assert "already here" in command("fetch", f"{root}/w.pth")[1]
        status, _, err = command("fetch", f"{root}/absent.pth")
        assert (status, "404" in err, "put it at" in err) == (2, True, True)
        status, _, err = command("fetch", f"{root}/page.pth")
        assert (status, "web page" in err) == (2, True)
    finally:
        server.shutdown()
        server.server_close()
    assert [path.name for path in (tmp_path / "cache/cvpods_ext/weights/127.0.0.1").iterdir()] == ["w.pth"]
