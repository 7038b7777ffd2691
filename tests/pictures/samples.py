"""Small pictures and class tables that several tests of this folder use."""

import numpy as np

from unetseg.classes import ClassTable, SegmentationClass

RNG = np.random.default_rng(7)
GREY8 = RNG.integers(0, 256, (6, 9), dtype=np.uint8)
RGB8 = RNG.integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY16 = RNG.integers(0, 65536, (6, 9), dtype=np.uint16)
RGB16 = RNG.integers(0, 65536, (6, 9, 3), dtype=np.uint16)
BITS = RNG.random((6, 9)) > 0.5
FLOATS = RNG.normal(size=(6, 9)).astype(np.float32)
INDICES = (np.arange(54).reshape(6, 9) % 3).astype(np.uint8)
SPREAD = np.array([0, 7, 300], np.uint16)[INDICES]
VALUES = ClassTable(
    (
        SegmentationClass("sky", 0, "#102030"),
        SegmentationClass("road", 255, "#ff8000"),
        SegmentationClass("car", 7, "#00ff00"),
    ),
    (11,),
)
COLOURS = ClassTable(
    (
        SegmentationClass("a", None, "#000000"),
        SegmentationClass("b", None, "#ff0000"),
        SegmentationClass("c", None, "#00c800"),
    ),
    ("#ffffff",),
)
