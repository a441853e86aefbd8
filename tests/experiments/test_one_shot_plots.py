"""What is drawn of one-shot pruning: every mean where it belongs, one entry per method in the legend."""

import numpy as np

from minisparse.experiments.one_shot_plots import one_shot_curves
from minisparse.experiments.second_order import Result
from minisparse.experiments.theme import DARK


def test_a_point_for_each_method_and_sparsity_and_a_line_for_the_dense_network():
    dense = Result("dense", 0.0, (0.9, 0.8), (0.1, 0.2))
    one = [
        dense,
        Result("a", 0.8, (0.2, 0.4), (1, 1)),
        Result("a", 0.5, (0.7,), (1,)),
        Result("b", 0.5, (0.6,), (1,)),
    ]
    two = [dense, Result("b", 0.5, (0.1,), (1,)), Result("c", 0.7, (0.3,), (1,))]
    figure = one_shot_curves({"one": one, "two": two}, "channels removed", theme=DARK)
    left, right = figure.axes
    assert [left.get_title(loc="left"), right.get_title(loc="left")] == ["one", "two"]
    assert left.get_xlabel() == "channels removed"
    drawn = {c.get_label(): c.lines[0].get_xydata() for c in left.containers}
    np.testing.assert_allclose(drawn["a"], [[50, 30], [80, 70]])  # in order of sparsity
    np.testing.assert_allclose(drawn["b"], [[50, 40]])
    np.testing.assert_allclose(left.lines[0].get_ydata(), 15)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["dense", "a", "b", "c"]
    same = [
        next(c for c in at.containers if c.get_label() == "b").lines[0].get_color() for at in (left, right)
    ]
    assert same[0] == same[1]
