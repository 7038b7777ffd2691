"""The threads of the device that computes."""

import pytest
import torch

from unetseg.devices import all_threads_again


def test_all_threads_compute_again_after_an_error():
    @all_threads_again()
    def fail():
        torch.set_num_threads(before + 2)
        raise KeyError

    before = torch.get_num_threads()
    with pytest.raises(KeyError):
        fail()
    assert torch.get_num_threads() == before
