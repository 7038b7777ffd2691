"""Batches of stored patches: their order, their normalisation, memory and disk alike."""

import numpy as np
import pytest
import torch

from unetseg.training import batches
from unetseg.training.batches import Patches, epoch_order


def make(dtype=np.uint8, channels=2, count=6):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 200, (count, 8, 8, channels)).astype(dtype)
    return images, rng.integers(0, 3, (count, 8, 8), np.uint8)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_batches_are_normalised_and_channels_first(dtype):
    images, masks = make(dtype)
    data = Patches(images, masks, (100.0, 50.0), (20.0, 4.0), torch.device("cpu"))
    assert len(data) == 6
    pictures, labels = data.batch(np.array([4, 1, 4]))
    assert pictures.dtype == torch.float32
    assert labels.dtype == torch.uint8
    expected = (images[[4, 1, 4]].astype(np.float64) - [100, 50]) / [20, 4]
    np.testing.assert_allclose(pictures.numpy(), np.moveaxis(expected, 3, 1), atol=1e-5)
    np.testing.assert_array_equal(labels.numpy(), masks[[4, 1, 4]])
    assert pictures.is_contiguous(memory_format=torch.channels_last)


def test_16_bits_over_the_half_keep_their_value():
    images = np.full((1, 8, 8, 1), 65535, np.uint16)
    data = Patches(images, np.zeros((1, 8, 8), np.uint8), (0.0,), (1.0,), torch.device("cpu"))
    assert float(data.batch(np.array([0]))[0].max()) == 65535


def test_patches_that_do_not_fit_are_read_from_the_disk_alike(tmp_path, monkeypatch):
    images, masks = make()
    images.tofile(tmp_path / "i")
    mapped = np.memmap(tmp_path / "i", np.uint8, "r", shape=images.shape)
    fitting = Patches(mapped, masks, (1.0, 2.0), (3.0, 4.0), torch.device("cpu"))
    monkeypatch.setattr(batches, "memory_of", lambda device: images.nbytes)
    large = Patches(mapped, masks, (1.0, 2.0), (3.0, 4.0), torch.device("cpu"))
    assert (fitting.in_memory, large.in_memory) == (True, False)
    for one, other in zip(
        fitting.batch(np.array([2, 0])), large.batch(np.array([2, 0])), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_several_processes_share_the_memory_of_a_machine(monkeypatch):
    images, masks = make()
    monkeypatch.setattr(batches, "memory_of", lambda device: 4 * (images.nbytes + masks.nbytes))
    kept = [
        Patches(images, masks, (1.0, 2.0), (3.0, 4.0), torch.device("cpu"), processes).in_memory
        for processes in (1, 2, 3)
    ]
    assert kept == [True, True, False]


def test_a_batch_changed_in_place_leaves_the_patches_alone():
    images, masks = make(np.float32)
    data = Patches(images, masks, (0.0, 0.0), (1.0, 1.0), torch.device("cpu"))
    pictures, labels = data.batch(np.array([0, 1]))
    pictures.zero_()
    labels.zero_()
    again, labels_again = data.batch(np.array([0, 1]))
    np.testing.assert_allclose(again.numpy(), np.moveaxis(images[:2], 3, 1))
    np.testing.assert_array_equal(labels_again.numpy(), masks[:2])


def test_order_holds_every_patch_once_and_depends_on_seed_and_epoch_alone():
    order = epoch_order(50, 3, 7)
    assert sorted(order) == list(range(50))
    np.testing.assert_array_equal(order, epoch_order(50, 3, 7))
    assert (order != epoch_order(50, 3, 8)).any()
    assert (order != epoch_order(50, 4, 7)).any()
