"""Networks and all that trains them: tensors only, no paths and no disk.

Read in this order:

- ``unet`` builds the networks.
- ``pretrained`` is the encoder whose features never change.
- ``labels`` turns their output into classes.
- ``losses`` compares their output with a mask.
- ``optimizers`` has Muon, the schedules of the learning rate and averaged weights.
- ``augmentation`` changes whole batches at random.
"""
