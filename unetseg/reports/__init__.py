"""HTML pages.

Read in this order: ``rendering`` turns a template of ``templates/`` into one file; ``charts``
draws curves as SVG; ``views`` cuts pictures to show. ``gathering`` collects the facts of a report
about a run or an evaluation, and ``score_report`` shows them. ``dataset_sheet`` shows a labelled
folder, ``suspect_sheet`` the masks that look wrong.
"""
