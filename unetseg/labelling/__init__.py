"""The labelling page: strokes in, masks on the disk, and what answers a stroke.

Read `project` (the folder), `journal` (no stroke is lost), `tiles` (what is seen), `security`, and
`server`, which ties them to the page in ``page/``. What answers a stroke: `features` describes the
pixels of an image, `head` learns classes from painted ones, `engine` does both beside the page.
"""
