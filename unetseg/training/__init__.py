"""Steps, budget, exact resume, folds.

Training stands above prediction and scoring because it validates. Read in this order: ``run`` is
`unetseg.train`; ``forecast`` refuses a budget that is too short; ``recipe`` fills in the settings;
``starting`` makes a trainer, new or resumed; ``loop`` is the course of a run, ``clock`` says when
it ends; ``learner`` does one step after the other on ``batches``; ``validation`` scores it;
``artefacts`` are the files that it leaves; ``checkpoint`` is the file that it goes on from;
``folds`` trains a model for each fold, and ``fold_record`` is their file.
"""
