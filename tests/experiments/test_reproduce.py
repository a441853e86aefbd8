"""The commands of a report make its runs."""

import shlex

from minisparse.experiments.plan import plan
from minisparse.experiments.reproduce import commands
from minisparse.experiments.runner import Outcome
from minisparse.experiments.spec import RunSpec


def of(specs: list[RunSpec]) -> list[Outcome]:
    return [Outcome(spec, sparsity_asked=spec.sparsity) for spec in specs]


def test_the_default_grid_is_the_default_command() -> None:
    assert commands(of(plan())) == ["minisparse compare"]


def test_a_grid_is_one_command_that_says_what_differs() -> None:
    specs = plan(["rigl", "snip"], [0.5, 0.95], [3, 7], model="mlp:64-8-10", epochs=4, optimizer="adam")
    (command,) = commands(of(specs))
    words = shlex.split(command)
    assert words[:2] == ["minisparse", "compare"]
    flags = dict(zip(words[2::2], words[3::2], strict=True))
    assert flags == {
        "--methods": "rigl,snip",
        "--sparsities": "0.5,0.95",
        "--seeds": "3,7",
        "--model": "mlp:64-8-10",
        "--epochs": "4",
        "--optimizer": "adam:beta1=0.9",
    }


def test_other_runs_are_made_one_by_one() -> None:
    specs = [
        RunSpec("magnitude", (("normalize", "true"), ("sparsity", "0.5"))),
        RunSpec("imp", (("keep_weights", "true"),), seed=2, dtype="float64", data="moons", model="mlp:2-4-2"),
    ]
    first, second = commands(of(specs))
    assert first == "minisparse run magnitude --normalize --sparsity 0.5"
    assert shlex.split(second)[2:4] == ["imp", "--keep-weights"]
    assert "--seed 2" in second
    assert "--data moons" in second
    assert "--dtype float64" in second
    assert "--epochs" not in second


def test_runs_of_a_method_that_is_gone_are_still_named() -> None:
    spec = RunSpec.stored({"method": "gone; rm -rf", "settings": {"sparsity": "0.5"}})
    assert commands([Outcome(spec)]) == ["minisparse run 'gone; rm -rf' --sparsity 0.5"]
    assert commands([]) == []
