"""HTML pages.

Read in this order: ``rendering`` turns a template into one file; ``charts`` draws curves as SVG;
``views`` cuts pictures to show; ``gathering`` and ``score_report`` make the report of a run;
``dataset_sheet`` shows a labelled folder, ``suspect_sheet`` the masks that look wrong.
"""
