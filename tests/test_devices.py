"""The threads of the device that computes, and machines without a GPU."""

import pytest
import torch

from tests.benchmarks import gpu
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


def test_the_benchmark_of_a_gpu_says_in_one_line_that_there_is_none(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main([])
    assert capsys.readouterr().out == "gpu: nothing is measured, as this machine has no GPU\n"
