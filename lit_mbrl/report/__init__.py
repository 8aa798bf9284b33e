"""Compare runs: `python -m lit_mbrl.report` writes one page and its figures.

`runs` reads and picks them, `statistics` says what they come to, `stated` holds the papers' own
numbers, `figures` draws and `page` writes.
"""
