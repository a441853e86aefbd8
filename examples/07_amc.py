"""Let an agent learn how many channels each layer may lose, and compare with the same share everywhere.

AMC (He et al. 2018): LeNet-5 on the digits may keep 30 % of its multiply-accumulates. The agent walks through
the layers 400 times; a walk is rewarded with the accuracy of the pruned network on samples held out of
training. Controls at the same budget: an even share, random walks in the mean, and the best of 400 random
walks. First layers that lost inputs are refitted by least squares, as in the authors' code, then they are
left alone.

With four decisions to make, expect the best of as many random walks to be about as good as the agent: both
are well above the even share, and most of the difference is gone after a short training.

The plot of what each layer keeps is written to amc_policy.png.
"""

from dataclasses import replace
from pathlib import Path

import minisparse as ms
from minisparse.experiments.policies import Setup, compare_policies, policy_shares, policy_table
from minisparse.experiments.theme import png

data = ms.data.load("digits")
setup = Setup(model="lenet-5", sparsity=0.7)
found = compare_policies(data, range(5), setup)
print("channels of least magnitude, readers refitted")
print(policy_table(found))
Path("amc_policy.png").write_bytes(png(policy_shares(found)))

print("\nchannels of least magnitude, nothing refitted")
print(policy_table(compare_policies(data, range(2), replace(setup, refit=False))))
