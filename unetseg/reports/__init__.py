"""HTML pages.

Read in this order:

- ``rendering`` turns a template of ``templates/`` into one file.
- ``charts`` draws curves as SVG.
- ``views`` cuts pictures to show.
- ``gathering`` collects the facts of a report about a run or an evaluation.
- ``object_part`` adds the objects to them.
- ``score_report`` shows all of it.
- ``dataset_sheet`` shows a labelled folder.
- ``suspect_sheet`` shows the masks that look wrong.
"""
