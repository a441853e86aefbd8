"""Lottery tickets and their controls: the same mask with new weights, the same weights with a shuffled mask.

Iterative magnitude pruning of LeNet-300-100 on the digits, a fifth of what remains per round; at some rounds
the ticket is trained beside its controls. Writes lottery_tickets.png.

J. Frankle, M. Carbin. The Lottery Ticket Hypothesis. ICLR 2019. arXiv:1803.03635, figures 3 and 4.
"""

from tempfile import TemporaryDirectory

import matplotlib

matplotlib.use("Agg")

from minisparse.experiments.cells import arm_rows
from minisparse.experiments.compare import compare
from minisparse.experiments.store import Store
from minisparse.experiments.ticket_plots import accuracy_of_arms
from minisparse.experiments.tickets import Climb, Ladder

ladder = Ladder((0.8, 0.9, 0.95, 0.98), seeds=(0, 1, 2), training={"epochs": 6, "batch": 32})
print(f"{ladder.height} rounds, compared after rounds {', '.join(map(str, ladder.rungs))}")
with TemporaryDirectory() as folder, Store(folder) as store:
    specs = [cell.spec for cell in ladder.cells]
    outcomes = compare(specs, store, execute=Climb(ladder, store.folder).execute)

rows = arm_rows(ladder.cells, outcomes)
for row in rows:
    print(f"{row.arm:18} {row.level:6.1%} sparse: {100 * row.accuracy:5.1f} +- {100 * row.spread:4.1f} %")
accuracy_of_arms(rows).savefig("lottery_tickets.png", dpi=110)
