"""What a set of random networks contains, counted: a test of the tests."""

from minisparse.nn import Activation, AvgPool2d, Conv2d, LinearLayer, MaxPool2d, Network, Residual, Window


def features(network: Network) -> set[str]:
    """Names of what the network contains, for counting what a set of networks covers."""
    found = {"images" if len(network.input_shape) == 3 else "rows"}
    for _, layer in network.walk():
        found.add(type(layer).__name__)
        if isinstance(layer, Activation):
            found.add(layer.name)
        if isinstance(layer, Residual):
            inner = [type(child).__name__ for _, child in layer.shortcut.children()]
            found.add(f"shortcut {inner[0] if inner else 'identity'}")
        if isinstance(layer, LinearLayer):
            found |= _weight_features(layer)
        if isinstance(layer, (Conv2d, MaxPool2d, AvgPool2d)):
            found |= _window_features(layer.window, type(layer).__name__)
    return found


def _weight_features(layer: LinearLayer) -> set[str]:
    mask = layer.weight.mask
    facts = {
        "masked": not mask.all(),
        "empty row": not mask.any(axis=1).all(),
        "empty column": not mask.any(axis=0).all(),
        "no bias": layer.bias is None,
        "width 1": mask.shape[0] == 1,
        "width 17": mask.shape[0] == 17,
    }
    return {name for name, true in facts.items() if true}


def _window_features(window: Window, name: str) -> set[str]:
    facts = {
        "rectangular": window.kernel[0] != window.kernel[1],
        "stride": max(window.stride) > 1,
        "uneven stride": window.stride[0] != window.stride[1],
        "padding": max(window.padding) > 0,
        "dilation": any(d > 1 and k > 1 for d, k in zip(window.dilation, window.kernel, strict=True)),
        "kernel 5": max(window.kernel) == 5,
    }
    return {f"{name} {fact}" for fact, true in facts.items() if true}
