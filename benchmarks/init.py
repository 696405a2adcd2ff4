"""A training that starts from a ready-made model against one from nothing: Jane Austen's novels, `rnn`.

    python benchmarks/init.py [--minutes 10 5] [--seeds 1]

Both have no option but how long they may take, of one thread and in CPU seconds, so that what else the machine does
costs nothing: 10 minutes from nothing, and 5 from `shakespeare`, whose network is then taken too. They are judged by
the nats of a character of what both hold out.
"""

import argparse
import sys
from statistics import mean

from datasets import fetch
from text_budget import one
from timing import Report

KINDS = ("rnn", "rnn from shakespeare")


def main() -> int:
    """Print the figures; return 1 when one is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", nargs=2, type=float, default=[10, 5], help="from nothing, and from the model")
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    report, nats = Report("aigc-sdk", "torch"), []
    for kind, minutes in zip(KINDS, arguments.minutes, strict=True):
        rows = [one(kind, fetch("austen"), 60 * minutes, seed) for seed in range(arguments.seeds)]
        for seed, row in enumerate(rows):
            told = ", ".join(f"{name} {value}" for name, value in row.items() if name != "nats")
            report.figure(f"{kind}, seed {seed}, {told}", row["nats"], "nats")
        nats.append(mean(row["nats"] for row in rows))
    report.figure(f"{arguments.minutes[0]:g} CPU minutes from nothing: nats of a character", nats[0])
    report.at_most(f"{arguments.minutes[1]:g} CPU minutes from shakespeare: the same", nats[1], nats[0])
    return report.exit_code


if __name__ == "__main__":
    sys.exit(main())
