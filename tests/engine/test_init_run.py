import torch
from torch import nn

from cvpods_ext.engine.checkpoint import CheckpointFolder
from cvpods_ext.engine.state import TrainingState
from cvpods_ext.modeling.layers import Conv2d
from cvpods_ext.modeling.weights.load import load_into
from cvpods_ext.modeling.weights.reader import read


def test_our_own_file_comes_back_bit_for_bit(tmp_path):
    """A version of the frozen norms' state that is mistaken for an old one would shift every variance by eps."""
    model = nn.Sequential(Conv2d(3, 4, 3, norm="FrozenBN"), Conv2d(4, 4, 3, norm="BN"))
    model[0].norm.running_var.uniform_(0.5, 2.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    state = TrainingState(model, optimizer, torch.amp.GradScaler("cpu", enabled=False))
    path = CheckpointFolder(tmp_path).save_final(state.weights(7))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for value in model.state_dict().values():
        value.zero_()
    report = load_into(model, read(path), source=str(path))
    assert not report.missing
    assert not report.skipped
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
