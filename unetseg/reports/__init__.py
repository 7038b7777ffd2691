"""HTML pages.

Read in this order: ``rendering`` turns a template of ``templates/`` into one file; ``charts`` draws
curves as SVG; ``views`` cuts pictures to show. ``gathering`` collects the facts of a report about a
run or an evaluation, ``object_part`` adds the objects, and ``score_report`` shows all.
``dataset_sheet`` shows a labelled folder, ``suspect_sheet`` the masks that look wrong.
"""
