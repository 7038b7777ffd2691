"""One labelled image beside what was predicted for it: what reports and rankings go through."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Case:
    """An image, its true mask and a predicted one.

    Attributes:
        name: Of the image.
        image: (H, W, C) in its own dtype.
        truth: (H, W) uint8 class indices, 255 ignored.
        prediction: (H, W) uint8 class indices.
        confidence: (H, W) float32, the probability 0 to 1 of the predicted class; None where only
            masks are known.
    """

    name: str
    image: NDArray[Any]
    truth: NDArray[np.uint8]
    prediction: NDArray[np.uint8]
    confidence: NDArray[np.float32] | None = None
