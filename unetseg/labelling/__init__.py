"""The labelling page: strokes in, masks on the disk, and what answers a stroke.

Read `project` (the folder), `journal` (no stroke is lost), `session` (what a stroke leads to),
`server`, `security` and `tiles`; the page lies in ``page/``. What answers a stroke: `features`
describes the pixels of an image, `head` learns classes from painted ones, `engine` does both beside
the page, `rounds` trains a network behind it, and `running_score` says which of them is better.
A brush may stop at the borders of `regions`.
"""
