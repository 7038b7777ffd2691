"""The head: classes of pixels from their features, learned from the painted ones in a blink.

It is a logistic regression. Its logits are a sum over the levels of the features, and enlarging is
linear too. So each level is reduced to one plane a class, and planes are enlarged instead of
features. The answer for four megapixels costs little more than reading their features.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from unetseg.classes import IGNORED
from unetseg.devices import all_threads_again
from unetseg.features.extraction import Features
from unetseg.network.labels import labels_of

_OF_CLASS = 500  # pixels drawn of a class in an image; further ones of a stroke are alike
PIXELS = 8_000  # pixels that a head learns from: fitting takes a quarter of a second
_PENALTY = 1e-3  # the factor of the squared weights in the loss
_STEPS, _ENOUGH = 30, 1e-5  # a search ends earlier where the loss falls by less
_ROUNDS = 30  # of the estimation of shares; further ones change little
_RAREST = 1e-6  # no share is estimated to be smaller, so that its logarithm is finite
_ROWS = 64  # so many rows of an answer are finished at once
_RADIUS = 2  # pixels, at half the size: the radius of the windows that smooth an answer
_MARGIN = 4 * _RADIUS + 2  # rows above and below that the smoothing of a row depends on
_EVEN = 0.01  # the variance of a window, in units of the picture's, below which it counts as even


@dataclass(frozen=True)
class Sample:
    """Painted pixels of an image; the classes take turns, so that any first part holds all classes.

    Attributes:
        features: (n, F) float32.
        labels: (n,) int64 class indices.
        totals: (255,) int64, the painted pixels of each class, drawn or not.
        groups: The groups of `Features`.
    """

    features: Tensor
    labels: Tensor
    totals: Tensor
    groups: tuple[int, ...]


@dataclass(frozen=True)
class Head:
    """A classifier of pixels.

    Attributes:
        weights: (F, K) float32, of the features as they are.
        bias: (K,) float32.
        classes: (K,) int64, the classes that it knows in ascending order.
    """

    weights: Tensor
    bias: Tensor
    classes: Tensor

    @torch.inference_mode()
    def classify(
        self, features: Features, pause: Callable[[], None] = lambda: None, least: float = 0.0
    ) -> NDArray[np.uint8]:
        """Return the class of each pixel of the picture that features describe: (h, w) uint8.

        The probabilities are smoothed, but not across the edges of the picture: see `smooth`.

        Args:
            features: The features.
            pause: A function that is called many times meanwhile. It may raise an error that ends
                the work.
            least: Pixels whose class has a smaller smoothed probability are 255.
        """
        own = [level.shape[0] for level in features.levels]
        weights = [part.T for part in torch.split(self.weights, own)]  # (K, F_k) each
        finest, classes = features.levels[0], self.classes.numpy().astype(np.uint8)
        height, width = features.shape
        planes: Tensor | None = None

        def refine(level: Tensor, weight: Tensor, top: int) -> Tensor:
            pause()
            return _finer(level, weight, planes, top, top + _ROWS)

        def finish(top: int) -> NDArray[np.uint8]:
            pause()
            first, bottom = max(top - _MARGIN, 0), min(top + _ROWS, height)
            logits = _finer(finest, weights[0], planes, first, bottom + _MARGIN)
            guide = finest[: features.channels, first : first + logits.shape[1]].float().mean(0)
            band = smooth(torch.softmax(logits, 0), guide)[:, top - first : bottom - first, :width]
            found: NDArray[np.uint8] = classes[labels_of(band).numpy()]
            if least:
                found[band.amax(0).numpy() < least] = IGNORED
            return found

        with _one_thread_each() as pool:
            for level, weight in zip(features.levels[:0:-1], weights[:0:-1], strict=True):
                tops = range(0, level.shape[1], _ROWS)
                planes = torch.cat([*pool.map(partial(refine, level, weight), tops)], 1)
            assert planes is not None  # there are six levels
            planes += self.bias[:, None, None]
            return np.concatenate([*pool.map(finish, range(0, height, _ROWS))])

    @torch.inference_mode()
    def entropy(self, features: Tensor) -> NDArray[np.float32]:
        """Return the entropy of the classes of pixels (n, F), 0 (sure) to 1 (all alike): (n,)."""
        logs = torch.log_softmax(features.float() @ self.weights + self.bias, 1)
        entropy: NDArray[np.float32] = -(logs.exp() * logs).sum(1).numpy()
        return entropy / np.float32(np.log(len(self.classes)))


def draw_sample(features: Features, labels: NDArray[np.uint8], most: int = PIXELS) -> Sample:
    """Draw painted pixels of an image, at most 500 of each class.

    A pixel comes before another by a hash of its place. So a new stroke replaces few of the pixels
    drawn before, and answers do not flicker. Where `Features.scale` is s, every s-th row
    and column of the labels counts.

    Args:
        features: The features of the image.
        labels: (H, W) class indices; 255 is not painted.
        most: No more pixels are drawn. Heads that learn from many images take few of each.
    """
    step, first = features.scale, features.scale // 2
    seen = labels[first::step, first::step]
    painted = np.flatnonzero(seen != IGNORED)
    order = _hash(painted)
    found = seen.ravel()[painted] if step == 1 else seen[np.divmod(painted, seen.shape[1])]
    totals = np.bincount(found, minlength=IGNORED)
    chosen, turns = [np.zeros(0, np.int64)], [np.zeros(0, np.int64)]
    for value in np.flatnonzero(totals):
        own = np.flatnonzero(found == value)
        if len(own) > _OF_CLASS:
            own = own[np.argpartition(order[own], _OF_CLASS)[:_OF_CLASS]]
        chosen.append(own[np.argsort(order[own])])
        turns.append(np.arange(len(chosen[-1])))
    drawn = np.concatenate(chosen)[np.argsort(np.concatenate(turns), kind="stable")]
    drawn = drawn[:most]
    rows, columns = np.divmod(painted[drawn], seen.shape[1])
    return Sample(
        features.at(first + step * rows, first + step * columns),
        torch.from_numpy(found[drawn].astype(np.int64)),
        torch.from_numpy(step**2 * totals),
        features.groups,
    )


def fit_head(
    samples: Sequence[Sample],
    before: Head | None = None,
    *,
    most: int = PIXELS,
    penalty: float = _PENALTY,
) -> Head | None:
    """Learn from painted pixels; return None where fewer than two classes are painted.

    Each feature is scaled to deviation 1, and then by the root of the size of its group. So 320
    features of one kind weigh no more than four of another: without that, many coarse features
    explain few strokes by heart. A class weighs as the root of its painted pixels.

    Args:
        samples: The sample of each image that is painted.
        before: The last head, from which the search begins.
        most: The pixels that the head learns from at most.
        penalty: The factor of the squared weights in the loss.
    """
    thinned = [_thin(sample, max(1, most // len(samples))) for sample in samples]
    labels = torch.cat([labels for _, labels, _ in thinned])
    classes, targets = torch.unique(labels, return_inverse=True)
    if len(classes) < 2:
        return None
    features = torch.cat([part for part, _, _ in thinned])
    sizes = torch.tensor(samples[0].groups)
    deviation, mean = torch.std_mean(features, 0, correction=0)
    scale = deviation.clamp_min(1e-4) * sizes.sqrt().repeat_interleave(sizes)
    inputs = F.pad((features - mean) / scale, (0, 1), value=1.0)
    weights = torch.cat([part for _, _, part in thinned])
    totals = torch.bincount(targets, weights)
    weights = (weights / totals.sqrt()[targets]).float()
    start = _start(before, classes, mean, scale)
    with _one_thread_each() as pool:
        work = pool.submit(_search, inputs, targets, weights / weights.sum(), start, penalty)
        found = work.result()
    own = found[:, :-1] / scale
    return Head(own.T.contiguous(), found[:, -1] - own @ mean, classes)


def adapt_head(head: Head, samples: Sequence[Sample], features: Tensor) -> Head:
    """Return a head for pixels among which the classes have other shares than among the strokes.

    Strokes show a rare class far more often than an image does. The shares are estimated by
    expectation maximisation (Saerens, Latinne, Decaestecker, 2002).

    Args:
        head: The head.
        samples: The samples that it was fitted to.
        features: (n, F), of pixels drawn evenly from those that the head will classify; n > 0.
    """
    learned = torch.stack([sample.totals for sample in samples]).sum(0)[head.classes].sqrt()
    learned /= learned.sum()  # as `fit_head` weighs the classes
    with torch.inference_mode():
        probabilities = torch.softmax(features.float() @ head.weights + head.bias, 1)
        shares = learned
        for _ in range(_ROUNDS):
            parts = probabilities * (shares / learned)
            shares = (parts / parts.sum(1, keepdim=True)).mean(0).clamp_min(_RAREST)
    return replace(head, bias=head.bias + (shares / learned).log())


def _hash(numbers: NDArray[np.int64]) -> NDArray[np.uint32]:
    """Return numbers that look random, the same for the same number (Knuth's multiplication)."""
    mixed = numbers.astype(np.uint32) * np.uint32(2654435761)
    return mixed ^ (mixed >> np.uint32(15))


def _thin(sample: Sample, most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return at most so many pixels of an image: features, labels, and how many each stands for."""
    labels = sample.labels[:most]
    drawn = torch.bincount(labels, minlength=len(sample.totals))
    return sample.features[:most], labels, sample.totals[labels] / drawn[labels]


def _start(before: Head | None, classes: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return the last weights (K, F + 1) for scaled features; 0 for classes new since then."""
    start = torch.zeros(len(classes), len(mean) + 1)
    if before is not None:
        new, old = (classes[:, None] == before.classes).nonzero(as_tuple=True)
        start[new, :-1] = before.weights.T[old] * scale
        start[new, -1] = before.bias[old] + before.weights.T[old] @ mean
    return start


def _search(
    inputs: Tensor, targets: Tensor, weights: Tensor, start: Tensor, penalty: float
) -> Tensor:
    """Return the weights (K, F + 1) that make the weighted cross-entropy least (L-BFGS).

    Args:
        inputs: (n, F + 1); the last of them is 1, and its weights are not penalised.
        targets: (n,) int64.
        weights: (n,) the weights of the pixels; their sum is 1.
        start: (K, F + 1).
        penalty: The factor of the squared weights.
    """
    search = torch.optim.LBFGS(
        [start], max_iter=_STEPS, tolerance_change=_ENOUGH, line_search_fn="strong_wolfe"
    )
    pixels, penalties = torch.arange(len(targets)), torch.full((start.shape[1],), penalty)
    penalties[-1] = 0

    @torch.inference_mode()
    def loss() -> Tensor:
        logs = torch.log_softmax(start @ inputs.T, 0)  # (K, n)
        slopes = logs.exp() * weights
        slopes[targets, pixels] -= weights
        # Twice as fast as autograd, which multiplies by the inputs the slow way round.
        start.grad = torch.addcmul(slopes @ inputs, start, penalties)
        return (start.square() @ penalties).sum() / 2 - logs[targets, pixels] @ weights

    search.step(loss)  # type: ignore[no-untyped-call]
    return start


@contextmanager
def _one_thread_each() -> Iterator[ThreadPoolExecutor]:
    """Work with as many threads as torch computes with here, each of which computes alone.

    Torch divides each operation among its threads, and they wait for each other after it. An answer
    takes thousands of short operations. On a busy machine this waiting took four times as long as
    the work, so that bands are divided instead.
    """
    threads, alone = torch.get_num_threads(), partial(torch.set_num_threads, 1)
    # The number that a thread sets counts for new threads, too, until it is set again.
    with all_threads_again(), ThreadPoolExecutor(threads, initializer=alone) as pool:
        yield pool


def _finer(level: Tensor, weight: Tensor, coarse: Tensor | None, top: int, bottom: int) -> Tensor:
    """Return rows of the planes of a level: its own part, and the coarser planes enlarged.

    Few rows at once need no large memory, so that they are several times as fast.

    Args:
        level: (F, h, w) float16.
        weight: (K, F).
        coarse: (K, h / 2, w / 2), or None at the coarsest level.
        top: The first row, an even number.
        bottom: The row after the last; it may lie beyond h.
    """
    part = level[:, top:bottom].float()
    planes = (weight @ part.flatten(1)).view(-1, *part.shape[1:])
    if coarse is not None:
        first = max(top // 2 - 1, 0)  # a row more on both sides, for the interpolation
        rows = coarse[:, first : bottom // 2 + 1]
        planes += _double(rows)[:, top - 2 * first :][:, : part.shape[1]]
    return planes


def smooth(planes: Tensor, guide: Tensor) -> Tensor:
    """Return planes smoothed within the even areas of a guide.

    This is the fast guided filter (He, Sun, 2015). In windows of 5 x 5 pixels at half the size,
    each plane becomes a linear function of the guide, and the functions are enlarged. The filter
    removes grains from the answers to strokes, and moves their borders to the edges.

    Args:
        planes: (K, h, w) float32, h and w even; changed in place. Planes that are nowhere the
            largest stay as they are.
        guide: (h, w) float32, about of deviation 1.
    """
    largest = torch.bincount(labels_of(planes).flatten()).nonzero().flatten().tolist()
    if len(largest) == 1:
        return planes
    small = _halve(guide)
    level, square = _mean(torch.stack([small, small.square()]))
    variance = square - level.square() + _EVEN
    for number in largest:  # one after the other: they stay in the processor's cache
        plane = _halve(planes[number])
        mean, product = _mean(torch.stack([plane, plane * small]))
        slope = (product - level * mean) / variance
        line = _mean(torch.stack([slope, mean - slope * level]))
        slope, offset = _double(line)
        torch.addcmul(offset, slope, guide, out=planes[number])
    return planes


def _halve(plane: Tensor) -> Tensor:
    """Return the means (h / 2, w / 2) of two by two pixels of a plane (h, w)."""
    rows = plane[::2] + plane[1::2]
    return (rows[:, ::2] + rows[:, 1::2]).mul_(0.25)


def _double(planes: Tensor) -> Tensor:
    """Return planes (n, h, w) enlarged to (n, 2 h, 2 w) by bilinear interpolation.

    Each pixel is three quarters of the nearest one and a quarter of the next; the border's pixels
    are repeated. That is `F.interpolate` in a third of its time.
    """
    count, height, width = planes.shape
    planes = F.pad(planes[None], (1, 1, 1, 1), mode="replicate")[0]
    rows = torch.empty(count, height, 2, width + 2)
    found = torch.empty(count, 2 * height, width, 2)
    for part in (0, 1):
        torch.lerp(planes[:, 1:-1], planes[:, 2 * part :][:, :height], 0.25, out=rows[:, :, part])
    planes = rows.view(count, 2 * height, width + 2)
    for part in (0, 1):
        near, far = planes[..., 1:-1], planes[..., 2 * part :][..., :width]
        torch.lerp(near, far, 0.25, out=found[..., part])
    return found.view(count, 2 * height, 2 * width)


def _mean(planes: Tensor) -> Tensor:
    """Return the means of planes (n, h, w) over windows; the border's pixels are repeated."""
    side = 2 * _RADIUS + 1
    planes = F.pad(planes[None], (_RADIUS,) * 4, mode="replicate")[0]
    for axis in (1, 2):
        size = planes.shape[axis] - 2 * _RADIUS
        total = planes.narrow(axis, 0, size) + planes.narrow(axis, 1, size)
        for start in range(2, side):
            total += planes.narrow(axis, start, size)
        planes = total.mul_(1 / side)
    return planes
