"""Times batched products whose odd one is shared by the threads, beside torch's own.

    python benchmarks/products.py

At the sizes of a model's hidden layers: the elites' in plans, and all networks' in a fit, with the
two products of their gradient. Both take turns; a time is the least of five rounds.
"""

import lit_mbrl  # isort: skip  # noqa: F401  # before torch, see lit_mbrl.mkl

from functools import partial

import torch
from phases import seconds

from lit_mbrl.products import bmm


def main() -> None:
    """Print a table."""
    print(f"{torch.get_num_threads()} threads")
    print("networks  rows  product      torch, ms  ours, ms")
    for networks, rows in (5, 1024), (7, 256):
        x, y = torch.randn(2, networks, rows, 200)
        w, z = torch.randn(networks, 200, 200), torch.empty(networks, 200, 200)
        for name, a, b, out in (
            ("outputs", x, w, y),
            ("by inputs", y, w.mT, x),
            ("by weights", x.mT, y, z),
        ):
            theirs, ours = partial(torch.bmm, a, b, out=out), partial(bmm, a, b, out=out)
            taken = [(seconds(theirs, 0.2), seconds(ours, 0.2)) for _ in range(5)]
            least = [1e3 * min(times) for times in zip(*taken, strict=True)]
            print(f"{networks:8} {rows:5}  {name:11} {least[0]:9.2f} {least[1]:9.2f}", flush=True)


if __name__ == "__main__":
    main()
