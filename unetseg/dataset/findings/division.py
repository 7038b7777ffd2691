"""Findings about the number of images, and those that are held out."""

from collections import Counter
from collections.abc import Iterator

from unetseg.dataset import splits
from unetseg.dataset.findings.facts import Facts
from unetseg.dataset.findings.finding import Finding, refusal_of
from unetseg.errors import InputError, arg
from unetseg.pictures import transforms
from unetseg.settings import DEFAULT_VAL
from unetseg.text import plural

_SMALL = 8  # pixels: images of fewer rows or columns show nothing


def judge_number(facts: Facts) -> Iterator[Finding]:
    """Warn of so few or so small images that scores say nothing."""
    if len(facts.surveys) == 2 and facts.settings.held_out_share > 0:
        text = "2 images: one is trained on, and the other alone is scored"
        yield Finding.of(
            "warning", [facts.root], text, "label more: the score says next to nothing"
        )
    scale = facts.settings.scale
    for shape in sorted({s.shape for s in facts.surveys}):
        height, width = transforms.scaled_size(*shape, scale)
        if min(height, width) < _SMALL:
            files = [s.pair.image for s in facts.surveys if s.shape == shape]
            text = f"{height} x {width} pixels show nothing to learn"
            yield Finding.of("warning", files, text, "leave it out")


def judge_parts(facts: Facts) -> Iterator[Finding]:
    """Note that the set says by itself which of its images are held out."""
    parts = [s.pair.part for s in facts.surveys]
    if not splits.has_parts(parts, facts.settings):
        return
    sides = splits.split_parts(parts, [s.sha256 for s in facts.surveys])
    counts, trained = Counter(parts), sides.count("train")
    copies = counts["train"] - trained
    text = " and ".join(f"{counts[part]} of {part}" for part in ("val", "test") if counts[part])
    text += f" and {plural(copies, 'copy', 'copies')} of these" if copies else ""
    text = f"the set is divided: {text} are held out, {trained} are trained on"
    remedy = f"{arg('val', DEFAULT_VAL)} divides all images anew"
    yield Finding.of("note", [facts.root], text, remedy)


def judge_division(facts: Facts) -> Iterator[Finding]:
    """Refuse a set from which no image can be held out."""
    surveys, settings = facts.surveys, facts.settings
    parts, hashes = [s.pair.part for s in surveys], [s.sha256 for s in surveys]
    if splits.has_parts(parts, settings):
        if "train" not in splits.split_parts(parts, hashes):
            text = "every image of train/ is also in val/ or test/, so none is left to train on"
            remedy = f"remove the copies, or divide all anew: {arg('val', DEFAULT_VAL)}"
            yield refusal_of(InputError(facts.root, text, remedy), facts.commands)
        return
    if not len(facts.halves):
        return
    try:
        groups = splits.groups_of([s.pair.file_stem for s in surveys], settings.group)
        present = facts.halves[:, 0].sum(1) > 0
        splits.split_groups(groups, present, hashes, settings.held_out_share, settings.seed)
    except InputError as error:
        yield refusal_of(error, facts.commands)
