"""``python -m tests.benchmarks [NAME...]``: run the benchmarks named, or all of them."""

import importlib
import sys

NAMES = (
    *(
        "speed",
        "start",
        "waiting",
        "size",
        "choices",
        "accuracy",
        "images",
        "networks",
        "pretraining",
        "pretrained",
        "scribbles",
        "rivals",
        "converting",
    ),
    *("copying", "lighting", "large", "predict", "coverage", "suggest", "objects", "million"),
    *("ranks", "gpu", "budget", "annotator", "sessions", "tour"),
)

if __name__ == "__main__":
    words = sys.argv[1:] or list(NAMES)
    name, *rest = words
    if name in NAMES and rest and rest[0] not in NAMES:
        importlib.import_module(f"tests.benchmarks.{name}").main(rest)
        sys.exit()
    unknown = [w for w in words if w not in NAMES]
    if unknown:
        sys.exit(f"no benchmark {unknown[0]!r}; there are {', '.join(NAMES)}")
    for word in words:
        importlib.import_module(f"tests.benchmarks.{word}").main([])
