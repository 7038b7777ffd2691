"""Steps, budget, exact resume, folds.

Training stands above prediction and scoring because it validates.

Read in this order:

- ``run`` is ``unetseg.train``; it compares a resume with the run that was interrupted.
- ``forecast`` refuses a budget that is too short.
- ``recipe`` fills in the settings.
- ``starting`` makes a trainer, new or resumed.
- ``loop`` is the course of a run.
- ``clock`` says when the run ends.
- ``threads`` chooses the number of threads where other work goes on.
- ``learner`` does one step after the other on ``batches``.
- ``validation`` scores the learner.
- ``artefacts`` are the files that a run leaves.
- ``checkpoint`` is the file from which a run goes on.
- ``folds`` trains a model for each fold; ``fold_loop`` goes from one to the next.
- ``fold_record`` is the file of the folds.
"""
