"""The faults of a folder of labelled images, and the commands that mend them.

Read in this order:

- ``finding`` is a fault with the advice to mend it.
- ``facts`` are the facts that are judged.
- ``contents``, ``images``, ``neighbours`` and ``division`` judge these facts.
- ``inspection`` looks at every file, and asks all judgements.
"""
