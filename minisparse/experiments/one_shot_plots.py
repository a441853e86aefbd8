"""Error against sparsity of networks that were pruned in one shot, a panel for each comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter

from minisparse.experiments.second_order import Result
from minisparse.experiments.theme import LIGHT, MARKERS, Theme, themed


@themed
def one_shot_curves(
    panels: Mapping[str, Sequence[Result]], what: str = "weights removed", *, theme: Theme = LIGHT
) -> Figure:
    """A panel per title, mean test errors over seeds with their standard deviations, on a logarithmic axis.

    panels: title -> results as `second_order.one_shot` and `channels.one_shot_channels` return them, the
    dense network, a line, first. what: of what the sparsity is a share.
    """
    figure, axes = theme.figure(5.6 * len(panels), 4.4, 1, len(panels), sharey=True)
    colors = (theme.plain, *theme.hues)
    named: dict[str, int] = {}
    for at, (title, results) in zip(axes[0], panels.items(), strict=True):
        at.axhline(100 - 100 * results[0].mean, color=theme.ink, linewidth=1, label="dense")
        for name in dict.fromkeys(r.method for r in results[1:]):
            own = sorted((r for r in results[1:] if r.method == name), key=lambda r: r.sparsity)
            k = named.setdefault(name, len(named))
            at.errorbar(
                [100 * r.sparsity for r in own], [100 - 100 * r.mean for r in own],
                [100 * r.spread for r in own],
                color=colors[k % len(colors)], marker=MARKERS[k % len(MARKERS)], capsize=2, label=name,
            )  # fmt: skip
        at.set_yscale("log", nonpositive="clip")
        at.yaxis.set_major_formatter("{x:g}")
        at.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        at.yaxis.set_minor_formatter(NullFormatter())
        at.xaxis.set_major_formatter(PercentFormatter(decimals=0))
        at.set_xticks(sorted({100 * r.sparsity for r in results[1:]}))
        at.set(title=title, xlabel=what)
    axes[0][0].set_ylabel("test error (%), nothing retrained")
    shown = {
        label: handle for at in axes[0] for handle, label in zip(*at.get_legend_handles_labels(), strict=True)
    }
    figure.legend(shown.values(), shown.keys(), loc="outside lower center", ncols=4 * len(panels))
    return figure
