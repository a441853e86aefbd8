"""The engine: layers with explicit backpropagation and second-order passes."""

from minisparse.nn.activation import Activation
from minisparse.nn.conv import Conv2d
from minisparse.nn.layer import Layer, LinearLayer
from minisparse.nn.linear import Linear
from minisparse.nn.loss import MSE, BinaryCrossEntropy, CrossEntropy, Loss
from minisparse.nn.mode import EVAL, Mode
from minisparse.nn.network import Network
from minisparse.nn.norm import BatchNorm1d, BatchNorm2d
from minisparse.nn.optim import SGD, Adam, AdamW, Optimizer
from minisparse.nn.param import Param
from minisparse.nn.pool import AvgPool2d, Dropout, Flatten, GlobalAvgPool, MaxPool2d
from minisparse.nn.residual import Residual, Sequence, SubsamplePad
from minisparse.nn.weight import MaskedWeight, Weight
from minisparse.nn.window import Window

__all__ = [
    "EVAL", "MSE", "SGD", "Activation", "Adam", "AdamW", "AvgPool2d", "BatchNorm1d", "BatchNorm2d",
    "BinaryCrossEntropy", "Conv2d", "CrossEntropy", "Dropout", "Flatten", "GlobalAvgPool", "Layer",
    "Linear", "LinearLayer", "Loss", "MaskedWeight", "MaxPool2d", "Mode", "Network", "Optimizer",
    "Param", "Residual", "Sequence", "SubsamplePad", "Weight", "Window",
]  # fmt: skip
