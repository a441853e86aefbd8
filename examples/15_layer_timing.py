"""One layer, every format: how long a product takes, at which sparsity it beats the dense one, and its size.

The second layer of a vision transformer's perceptron (768 outputs, 3072 inputs), one sample and 256,
unstructured masks, one thread, next to dense BLAS and SciPy's CSR. `minisparse bench kernels` measures with
more care and on more shapes. Writes layer_timing.png (one sample), layer_timing_batch.png and
layer_timing_bytes.png.

M. Lasby et al. ICLR 2024. arXiv:2305.02299, figure 4.
"""

from dataclasses import replace

import matplotlib

matplotlib.use("Agg")

from minisparse.experiments.bench_cases import CASES, SHAPES
from minisparse.experiments.bench_kernels import measured
from minisparse.experiments.bench_plots import SWEPT, memory, times

cases = {batch: next(c for c in CASES if c.kernel == kernel) for batch, kernel in SWEPT.items()}
records = []
for case in cases.values():
    records += measured(replace(case, shapes=SHAPES[:1]), threads=(1,), quick=True)

for row in records:
    if row["sparsity"] in (0.5, 0.9, 0.95):
        print(
            f"batch {row['batch']:3} {row['sparsity']:4.0%} sparse, {row['format']:8} "
            f"{1e3 * row['median_s']:7.3f} ms, {row['speedup_dense']:5.2f} times as fast as dense, "
            f"{row['speedup_scipy']:5.2f} as SciPy, {row['bytes'] / row['dense_bytes']:5.1%} of the bytes"
        )
times(records, 1).savefig("layer_timing.png", dpi=110)
times(records, 256).savefig("layer_timing_batch.png", dpi=110)
memory(records).savefig("layer_timing_bytes.png", dpi=110)
