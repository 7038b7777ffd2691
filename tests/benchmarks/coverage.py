"""How often the 95 % intervals of scores hold the score of the population, by models of images.

Each model draws, for n images of a set, the pixels of union and intersection of every class. The
score of the population is known from 400,000 images. ``python -m tests.benchmarks coverage
[DRAWS]`` takes another number of draws; 4,000 know a coverage of 95 % to 0.35 points.
"""

import warnings

import numpy as np

from tests.benchmarks.common import machine, print_table
from unetseg.scoring.intervals import of_differences, of_ratios

DRAWS = 4_000
UNITS = (4, 8, 15, 30)
_POPULATION = 400_000
_RESAMPLES = 1_000
_AREAS = np.array([20_000, 4_000, 800])  # pixels of a background, objects, thin lines


def _sizes(rng, spread, shape, areas):
    return areas * np.exp(rng.normal(-(spread**2) / 2, spread, shape))


def _beta(rng, mean, strength, shape):
    """Return quality 0 to 1 of that mean; its variance is mean (1 - mean) / (strength + 1)."""
    return rng.beta(np.broadcast_to(mean * strength, shape), (1 - mean) * strength)


def _logistic(x):
    return 1 / (1 + np.exp(-x))


def _count(quality, union):
    union = np.round(union)
    return np.round(quality * union), union


def even(rng, draws, n):
    """Images of one kind: quality by a beta distribution, objects of about one size."""
    shape = (draws, n, 3)
    quality = _beta(rng, np.array([0.95, 0.8, 0.6]), 20, shape)
    return _count(quality, _sizes(rng, 0.4, shape, _AREAS))


def sizes(rng, draws, n):
    """Objects of very different size (two thirds within a factor of six), large ones easier."""
    z = rng.normal(0, 1, (draws, n, 3))
    quality = _beta(rng, _logistic(np.array([3, 1.4, 0.4]) + 0.3 * z), 15, z.shape)
    return _count(quality, _AREAS * np.exp(0.9 * z))


def _failing(bad_means, bad_strength):
    def draw(rng, draws, n):
        bad = rng.random((draws, n, 1)) < 0.1
        mean = np.where(bad, bad_means, [0.95, 0.85, 0.75])
        quality = _beta(rng, mean, np.where(bad, bad_strength, 20), mean.shape)
        return _count(quality, _sizes(rng, 0.4, mean.shape, _AREAS))

    return draw


def rare(rng, draws, n):
    """Four classes, in all, 90 %, 60 % and 30 % of the images."""
    shape = (draws, n, 4)
    union = _sizes(rng, 0.6, shape, np.array([20_000, 4_000, 2_000, 1_000]))
    shown = rng.random(shape) < [1, 0.9, 0.6, 0.3]
    return _count(_beta(rng, np.array([0.95, 0.8, 0.7, 0.7]), 15, shape), union * shown)


def correlated(rng, draws, n):
    """Five classes that are hard in the same images (correlation 0.8)."""
    common = rng.normal(0, 1, (draws, n, 1))
    effect = 0.9 * common + 0.45 * rng.normal(0, 1, (draws, n, 5))
    quality = _logistic(np.array([3, 2, 1.5, 1, 0.5]) + 0.7 * effect)
    areas = np.array([20_000, 4_000, 3_000, 2_000, 800])
    return _count(quality, _sizes(rng, 0.5, quality.shape, areas))


def near_perfect(rng, draws, n):
    """IoU 0.998, 0.985 and 0.97."""
    shape = (draws, n, 3)
    quality = _beta(rng, np.array([0.998, 0.985, 0.97]), np.array([800, 200, 100]), shape)
    return _count(quality, _sizes(rng, 0.5, shape, _AREAS))


def exact(rng, draws, n):
    """Few pixels a class, most images right to the last pixel."""
    shape = (draws, n, 3)
    quality = _beta(rng, np.array([0.999, 0.99, 0.98]), np.array([1000, 150, 60]), shape)
    return _count(quality, _sizes(rng, 0.5, shape, np.array([2_000, 100, 40])))


def images_in_groups(rng, draws, n):
    """Groups of 1 to 6 images that are hard for nearly the same reasons; arrays hold images."""
    effect = rng.normal(0, 0.7, (draws, n, 1, 1)) + 0.4 * rng.normal(0, 1, (draws, n, 6, 3))
    quality = _logistic(np.array([3, 1.5, 0.8]) + effect)
    kept = np.arange(6) < rng.integers(1, 7, (draws, n, 1))
    return _count(quality, _sizes(rng, 0.4, quality.shape, _AREAS) * kept[..., None])


def groups(rng, draws, n):
    """The same, each group's pixels pooled: a group is the unit."""
    part, whole = images_in_groups(rng, draws, n)
    return part.sum(2), whole.sum(2)


MODELS = {
    "one kind of images": even,
    "objects of many sizes": sizes,
    "1 in 10 is worse": _failing([0.85, 0.6, 0.5], 8),
    "1 in 10 fails": _failing([0.7, 0.35, 0.25], 20),
    "rare classes": rare,
    "correlated classes": correlated,
    "near-perfect": near_perfect,
    "mostly exact": exact,
    "groups of images": groups,
}


def bootstrap(part, whole, rng):
    """Return percentile intervals of n units (..., n, C): of the mean (..., 2) and (..., C, 2)."""
    draws, n, classes = part.shape
    counts = rng.multinomial(n, np.full(n, 1 / n), _RESAMPLES).astype(np.float64)
    mean, each = np.empty((draws, 2)), np.empty((draws, classes, 2))
    for k in range(draws):
        below = counts @ whole[k]  # (resamples, C)
        ratio = np.divide(
            counts @ part[k], below, out=np.full(below.shape, np.nan), where=below > 0
        )
        missing = np.isnan(ratio)
        values = np.column_stack([np.where(missing, 0, ratio).sum(1) / (~missing).sum(1), ratio])
        if missing.any():
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a class that no unit of a draw has
                ends = np.nanpercentile(values, [2.5, 97.5], axis=0)
        else:
            ends = np.percentile(values, [2.5, 97.5], axis=0)
        mean[k], each[k] = ends[:, 0], ends[:, 1:].T
    return mean, each


def covered(ends, truth):
    """Return whether intervals (..., 2) hold the truth: 1 or 0, NaN where there is none."""
    held = (ends[..., 0] <= truth) & (truth <= ends[..., 1])
    return np.where(np.isnan(ends[..., 0]), np.nan, held)


def percent(values):
    """Return the mean of the defined values in percent; "-" where less than a tenth is."""
    defined = values[~np.isnan(values)]
    return f"{100 * defined.mean():.1f}" if defined.size >= values.size / 10 else "-"


def by_class(held):
    """Return least and greatest coverage over classes of (draws, C)."""
    found = [percent(column) for column in held.T]
    numbers = [float(text) for text in found if text != "-"]
    return f"{min(numbers):.1f}-{max(numbers):.1f}" if numbers else "-"


def coverage_of(draw, n, draws, seed=0, resampled=200):
    """Return a row: ours for mean and classes, the share without, bootstrap for mean and classes.

    A class counts in draws in which it occurs in at least 3 of the n units.
    """
    rng = np.random.default_rng(seed)
    part, whole = (x[0].sum(0) for x in draw(rng, 1, _POPULATION))
    truth = part / whole
    part, whole = draw(rng, draws, n)
    mean, each = of_ratios(part, whole)
    some = slice(resampled)
    loose_mean, loose = bootstrap(part[some], whole[some], rng)
    seen = (whole[some] > 0).sum(1) >= 3
    loose[~seen] = np.nan
    loose_mean[~seen.all(1)] = np.nan
    return (
        percent(covered(mean, truth.mean())),
        by_class(covered(each, truth)),
        f"{100 * np.isnan(mean[:, 0]).mean():.0f}",
        percent(covered(loose_mean, truth.mean())),
        by_class(covered(loose, truth)),
    )


def paired(draw, how):
    """Return a model of two networks on the same images: four arrays."""

    def both(rng, draws, n):
        part, whole = draw(rng, draws, n)
        quality = np.divide(part, whole, out=np.full(whole.shape, 0.5), where=whole > 0)
        logit = np.log((part + 0.5) / (whole - part + 0.5))
        gain = rng.normal(0, 0.3, quality.shape)
        if how == "better":
            gain += 0.3
        elif how == "better in 1 of 5":
            gain += 1.0 * (rng.random((*quality.shape[:2], 1)) < 0.2)
        union = whole * np.exp(rng.normal(0, 0.05, whole.shape))
        return part, whole, *_count(_logistic(logit + gain), union)

    return both


def paired_coverage_of(draw, n, draws, seed=0):
    """Return ours for the difference of means, of classes, and the share of draws that hold 0."""
    rng = np.random.default_rng(seed)
    sums = [x[0].sum(0) for x in draw(rng, 1, _POPULATION)]
    truth = sums[2] / sums[3] - sums[0] / sums[1]
    mean, each = of_differences(*draw(rng, draws, n))
    return (
        percent(covered(mean, truth.mean())),
        by_class(covered(each, truth)),
        percent(covered(mean, 0.0)),
    )


def main(words: list[str]) -> None:
    """Simulate and print."""
    draws = int(words[0]) if words else DRAWS
    rows = [(name, n, *coverage_of(draw, n, draws)) for name, draw in MODELS.items() for n in UNITS]
    columns = ["images", "n", "mean", "classes", "none %", "bootstrap: mean", "classes"]
    title = f"Percent of 95 % intervals that hold the population's IoU ({draws} draws; {machine()})"
    print_table(title, columns, rows)
    names = ("one kind of images", "objects of many sizes", "correlated classes", "rare classes")
    rows = [
        (name, how, n, *paired_coverage_of(paired(MODELS[name], how), n, draws))
        for name in (*names, "groups of images")
        for how in ("equal", "better", "better in 1 of 5")
        for n in UNITS
    ]
    columns = ["images", "the other is", "n", "mean", "classes", "mean holds 0"]
    print_table("The same of paired differences", columns, rows)
