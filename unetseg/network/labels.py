"""From the planes of the classes to the class of each pixel."""

import numpy as np
import torch
from torch import Tensor


def labels_of(planes: Tensor) -> Tensor:
    """Return which plane is the largest at each pixel; of equal ones it is the first.

    Args:
        planes: (K, h, w) floats that are numbers, on any device; K is at most 255.

    Returns:
        (h, w) uint8 on the CPU.
    """
    if planes.device.type != "cpu":
        return planes.max(0).indices.to(torch.uint8).cpu()
    # To compare plane by plane takes a fifth of the time of that line, and `argmax` takes five
    # times as long as that line.
    values = planes.numpy()
    top, last = values.max(0), len(values) - 1
    found = np.zeros(top.shape, np.uint8)  # counted from the last plane
    for number, plane in enumerate(values[::-1]):
        np.maximum(found, (plane == top).view(np.uint8) * np.uint8(number), out=found)
    return torch.from_numpy(np.uint8(last) - found)
