"""The weights of the pretrained encoder: damaged ones, others, and files of something else."""

import pytest
import torch
from safetensors.torch import save_file

from tests.support import changed_encoder_weights
from unetseg.errors import InputError, MachineError
from unetseg.features import encoder_weights


def test_installed_weights_that_are_damaged_are_refused(tmp_path, monkeypatch):
    content = bytearray(encoder_weights._installed())
    content[-1] ^= 1
    (tmp_path / "models").mkdir()
    (tmp_path / encoder_weights._NAME).write_bytes(content)
    spec = type("Spec", (), {"origin": str(tmp_path / "__init__.py")})
    monkeypatch.setattr(encoder_weights, "find_spec", lambda _: spec)
    with pytest.raises(MachineError, match="checksum differs"):
        encoder_weights.read_encoder_weights()


def test_other_weights_are_read_from_safetensors_and_from_a_state_dict(tmp_path):
    state = changed_encoder_weights()
    torch.save(state, tmp_path / "w.pth")
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "w.safetensors")
    one, two = (
        encoder_weights.read_encoder_weights(tmp_path / name) for name in ("w.pth", "w.safetensors")
    )
    usual = encoder_weights.read_encoder_weights()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not torch.equal(one["stem.weight"], usual["stem.weight"])
    assert torch.equal(one["blocks.3.project.weight"], usual["blocks.3.project.weight"])


@pytest.mark.parametrize(
    ("state", "problem"),
    [
        ({"conv1.weight": torch.zeros(1)}, "has no weights called '_bn0.running_mean'"),
        (torch.nn.Conv2d(1, 1, 1), "is no state dict, or holds code"),
        (b"\x80\x02nothing of the kind", "is no state dict, or holds code"),
        (b"nothing of the kind", "neither safetensors nor a state dict"),
        (b"hello", "neither safetensors nor a state dict"),
        ([torch.zeros(1)], "not readable as weights"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, state, problem):
    path = tmp_path / "w.pth"
    path.write_bytes(state) if isinstance(state, bytes) else torch.save(state, path)
    wanted = "give weights of an EfficientNet-Lite0, under the names of EfficientNet-PyTorch"
    with pytest.raises(InputError, match=rf"{problem}.*; {wanted}, or leave weights out"):
        encoder_weights.read_encoder_weights(path)
