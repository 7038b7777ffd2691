"""Steps, budget, exact resume, folds.

Training stands above prediction and scoring because it validates. Read in this order: ``run`` is
`unetseg.train`; ``loop`` is the course of a run; ``learner`` does one step after the other;
``artefacts`` writes the pictures of a run; ``folds`` trains a model for each fold.
"""
