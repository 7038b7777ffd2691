"""nnU-Net's own trainer, stopped by the clock; run by the Python of nnU-Net's environment.

All is nnU-Net's, with two exceptions. Its learning rate falls over the time that is left instead of
over 1,000 epochs. Nothing is validated on the way. `NNUNET_END` is the time of day to stop at. The
class is put among nnU-Net's own, where its program for predictions looks for it.
"""

import os
import shutil
import time
from pathlib import Path

import nnunetv2
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


class nnUNetTrainerTimed(nnUNetTrainer):  # noqa: N801
    """Trains until the time of day that `NNUNET_END` gives."""

    def run_training(self) -> None:
        """Train, and save the final weights."""
        self.on_train_start()
        begin, end = time.time(), float(os.environ["NNUNET_END"])
        self.network.train()
        steps = 0
        while (now := time.time()) < end:
            for group in self.optimizer.param_groups:
                group["lr"] = self.initial_lr * (1 - (now - begin) / (end - begin)) ** 0.9
            self.train_step(next(self.dataloader_train))
            steps += 1
        print(f"{steps} iterations of batches of {self.batch_size}")
        self.on_train_end()


def _main() -> None:
    from nnunetv2.run.run_training import get_trainer_from_args

    torch.set_num_threads(os.cpu_count() or 1)
    place = Path(nnunetv2.__file__).parent / "training" / "nnUNetTrainer"
    shutil.copy(__file__, place / "nnUNetTrainerTimed.py")
    names = ("1", "2d", "all", "nnUNetTrainerTimed", "nnUNetPlans")
    trainer = get_trainer_from_args(*names, device=torch.device("cpu"))
    trainer.run_training()


if __name__ == "__main__":
    _main()
