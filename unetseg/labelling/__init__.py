"""The labelling page: strokes in, masks on the disk, and what answers a stroke.

Read `project` (the folder), `journal` (no stroke is lost), `tiles` (what is seen), `security`, and
`server`, which ties them to the page in ``page/``.
"""
