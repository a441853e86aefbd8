"""Train one network with one method; the method's settings are flags.

minisparse run rigl --sparsity 0.95 --every 50
minisparse run magnitude --schedule cubic:begin=0.1 --allocation erk --model lenet-5
minisparse run set --sparsity 0.98 --model set-mlp --storage csr      sparse layers in CSR
minisparse run magnitude --model lenet-5 --weights net.safetensors      from these weights, e.g. of PyTorch
minisparse run METHOD --help       shows the settings of METHOD

An interrupted run is saved: Ctrl-C ends it after the step (twice: at once), and the same command goes on from
there, bit for bit as if it had not been interrupted.
"""

from __future__ import annotations

import argparse
from argparse import Namespace
from dataclasses import replace
from typing import Any

import numpy as np

from minisparse.cli.arguments import Parser
from minisparse.cli.console import Meter, Screen, duration, percent
from minisparse.cli.errors import DONE, FAILED
from minisparse.cli.flags import add_training, choice, sparsity, training_settings, whole
from minisparse.cli.layers import show_layers
from minisparse.cli.preflight import preflight
from minisparse.exchange import fingerprint, load_into
from minisparse.exchange.shortcut import PADDINGS
from minisparse.experiments.runner import Outcome, carry_out, dataset, execute, unfinished
from minisparse.experiments.settings import Setting, fields_of
from minisparse.experiments.spec import PRECISIONS, RunSpec
from minisparse.experiments.store import Store
from minisparse.methods.registry import catalogue, find
from minisparse.nn.loss import LOSSES
from minisparse.nn.models import build
from minisparse.nn.network import Network
from minisparse.training.keeper import Keeping
from minisparse.training.run import evaluate
from minisparse.training.snapshot import discard, latest
from minisparse.training.state import TrainState

READERS = {"sparsity": sparsity}  # says what is wrong with 90 or nan better than a number's reader
PREFIX = "setting_"


def add_arguments(parser: Parser) -> None:
    """The method, the training, and the settings of the method that was typed."""
    parser.add_argument("method", metavar="METHOD", help="see: minisparse list methods")
    add_training(parser)
    parser.value(
        "--dtype", read=choice("precision", PRECISIONS), default=PRECISIONS[0],
        help=f"one of {', '.join(PRECISIONS)} (%(default)s)",
    )  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="run again what is stored or half done already")
    parser.value(
        "--checkpoint-every", read=whole("checkpoint-every", 1), metavar="N",
        help="save the run every N steps (default: at ends of epochs, 10 s apart); Ctrl-C saves it too",
    )  # fmt: skip
    parser.add_argument(
        "--weights", metavar="FILE", help="start from the network of a .safetensors or .npz file"
    )
    parser.value(
        "--padding", read=choice("padding", PADDINGS), metavar="SIDE",
        help="where the residual shortcuts of that network put new channels: end or centre",
    )  # fmt: skip
    name = next((token for token in parser.tokens if token in catalogue()), None)
    if name is not None:
        group = parser.add_argument_group(f"settings of {name}")
        for setting in fields_of(catalogue()[name].cls):
            add_setting(parser, group, setting)


def add_setting(parser: Parser, group: Any, setting: Setting) -> None:
    """One flag: --name VALUE, or --name/--no-name; --method-name where a training flag has the name."""
    name = setting.name.replace("_", "-")
    flag = f"--method-{name}" if parser.has(f"--{name}") else f"--{name}"
    text = f"{setting.help} ({setting.text})".replace("%", "%%")
    common: dict[str, Any] = {"dest": PREFIX + setting.name, "default": argparse.SUPPRESS, "help": text}
    if setting.type is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, **common)
    else:
        read = READERS.get(setting.name, str)
        parser.value(flag, read=read, group=group, metavar=_metavar(setting), **common)


def _metavar(setting: Setting) -> str:
    return getattr(setting.type, "__name__", "value").upper()


def run(args: Namespace) -> int:
    """Train (or read the stored result), save, print."""
    find(args.method)
    spec, network = spec_of(args), None
    if args.weights is not None:
        network = imported(args, spec)
        spec = replace(spec, weights=fingerprint(network))
    with Store(args.out) as store:
        outcome = None if args.fresh else store.get(spec.key)
        if outcome is not None and outcome.finished and store.has_network(spec.key):
            args.screen.note(f"already there: run {spec.key} in {args.out} (--fresh runs it again)")
        else:
            outcome = train(args, spec, store, network)
    if args.json:
        args.screen.json({"key": spec.key, **outcome.to_json()})
    else:
        show(args.screen, outcome, args.out)
    return verdict(outcome, args.strict)


def spec_of(args: Namespace) -> RunSpec:
    """The spec that the flags describe; UsageError and its kin for what cannot be."""
    given = vars(args)
    settings = {key[len(PREFIX) :]: given[key] for key in given if key.startswith(PREFIX)}
    training = training_settings(args) | {"seed": args.seed, "dtype": args.dtype}
    return RunSpec(args.method, tuple(settings.items()), **training)


def imported(args: Namespace, spec: RunSpec) -> Network:
    """The network of the file, in the spec's precision; how good it is already goes to the notes."""
    data = dataset(spec.data, args.data_dir)
    network = build(spec.model, data, spec.seed, spec.init).astype(np.dtype(spec.dtype))
    pairs = load_into(network, args.weights, padding=args.padding)
    renamed = ", ".join(f"{name} <- {theirs}" for name, theirs in pairs.items() if name != theirs)
    if renamed:
        args.screen.note(f"weights: {renamed}")
    loss = LOSSES["mse" if data.classes is None else "cross-entropy"]()
    value, accuracy = evaluate(network, loss, data.test_x.astype(network.dtype), data.test_y)
    args.screen.note(f"{args.weights} on {spec.data}: test loss {value:.4f}, accuracy {percent(accuracy)}")
    return network


def train(args: Namespace, spec: RunSpec, store: Store, network: Network | None = None) -> Outcome:
    """Run the spec, from this network if there is one, with a line per epoch, and keep the outcome."""
    preflight([spec], args.data_dir)
    place = unfinished(args.out, spec)
    keeping = Keeping(place, args.checkpoint_every, resume=not args.fresh)
    with args.screen.meter(spec.epochs) as meter:
        meter.tell(spec.label)
        if keeping.resume and latest(place) is not None:
            meter.tell(f"goes on after step {latest(place):,} (--fresh starts again)")
        try:
            if network is None:
                outcome = execute(spec, args.data_dir, Epochs(meter), keeping)
            else:
                data = dataset(spec.data, args.data_dir)
                outcome = carry_out(spec, network, spec.build(), data, Epochs(meter), keeping)
        except KeyboardInterrupt:
            raise KeyboardInterrupt(interrupted(args, latest(place))) from None
    store.put(outcome)
    discard(place)
    return outcome


def interrupted(args: Namespace, step: int | None) -> str:
    """What is kept of an interrupted run, and how to go on."""
    if step is None:
        return f"nothing of this run was kept; earlier runs in {args.out} are; the same command starts again"
    command = "the same command without --fresh" if args.fresh else "the same command"
    return f"step {step:,} of this run is saved in {args.out}; {command} goes on from there"


class Epochs:
    """Progress of a training: a line per epoch with the mean loss of its steps."""

    def __init__(self, meter: Meter) -> None:
        self.meter = meter
        self.losses: list[float] = []

    def __call__(self, state: TrainState) -> None:
        """Called after every step, and once before the first."""
        if state.step == 0:
            return
        self.losses.append(state.value)
        epoch, rest = divmod(state.step, state.steps_per_epoch)
        mean = sum(self.losses) / len(self.losses)
        self.meter.move(state.step / state.steps_per_epoch, f"epoch {epoch + (rest > 0)}  loss {mean:.4f}")
        if rest == 0:
            layers = state.network.prunable().values()
            kept, total = sum(x.weight.kept for x in layers), sum(x.weight.size for x in layers)
            share = 1 - kept / total if total else 0.0
            self.meter.tell(f"epoch {epoch:>3}  loss {mean:.4f}  sparsity {share:.4f}  lr {state.lr:.4g}")
            self.losses.clear()


def show(screen: Screen, outcome: Outcome, out: str) -> None:
    """Result, layers and where it is."""
    screen.heading(outcome.spec.label)
    screen.line(f"{outcome.status}: {outcome.note}" if outcome.note else outcome.status)
    screen.line(f"test accuracy {percent(outcome.accuracy)} (chance {percent(outcome.chance)})")
    screen.line(
        f"sparsity asked {outcome.sparsity_asked:.4f}, obtained {outcome.sparsity:.4f}; "
        f"compression x{outcome.compression:.2f} of all parameters; "
        f"{outcome.steps:,} steps in {duration(outcome.seconds)}"
    )
    show_layers(screen, outcome.layers, outcome.bytes, outcome.forward_seconds)
    screen.line(f"run {outcome.spec.key} in {out}; see: minisparse inspect {outcome.spec.key[:8]}")


def verdict(outcome: Outcome, strict: bool) -> int:
    """1 for a run that diverged or failed; for a collapsed one too if strict."""
    bad = outcome.status == "collapsed" if strict else False
    return FAILED if bad or outcome.status not in ("done", "collapsed") else DONE
