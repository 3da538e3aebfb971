"""The command that a card gives trains with the settings of the run."""

import functools
import shlex
from dataclasses import replace

import pytest
import tyro

from cfnseg.cli import split_recipe
from cfnseg.commands import Settings
from cfnseg.config import Config, Data, Loss, Model, Optim, Train, load_config
from cfnseg.export.origin import LEFT_OUT, _flat, training_command

OWN = Config(
    model=Model(encoder="resnet50", encoder_weights=None, grid=(1, 1), strides=(8, 16)),
    data=Data(name="folder", root="/home/anna/my data", holdout="*0_", scale=(0.5, 1.5)),
    optim=Optim(name="adamw", lr=1e-4, drops=()),
    loss=Loss(class_weights="median", ohem=0.25),
    train=Train(init="hf:anna/net@v1", epochs=7, compile=True),
    name="mine",
)


def parsed(command):
    """The config of a command line."""

    def given(config: Settings) -> Config:
        return config

    config, rest = split_recipe(shlex.split(command)[2:])
    return tyro.cli(functools.partial(given, config=config), args=rest)


@pytest.mark.parametrize(
    "config",
    [
        OWN,
        replace(OWN, model=replace(OWN.model, level="image", name="dsn")),
        replace(load_config("camvid_cfn"), data=Data(name="camvid")),
        Config(),
    ],
)
def test_the_command_has_every_setting(config):
    command = training_command(config)
    assert command.startswith(
        "cfnseg classify " if config.model.level == "image" else "cfnseg train "
    )
    assert _flat(parsed(command)) == _flat(config)
    assert "anna/my" not in command and ("--data.root DIR" in command) == bool(config.data.root)


@pytest.mark.parametrize("name", ["camvid_cfn", "cifar10_cfn", "shapes_cfn"])
def test_a_recipe_is_its_own_command(name):
    kind = "classify" if name.startswith("cifar") else "train"
    assert training_command(load_config(name)) == f"cfnseg {kind} {name}"


def test_what_is_left_out_is_of_places_and_displays():
    names = _flat(Config()).keys() | LEFT_OUT
    assert names >= LEFT_OUT and "optim.lr" in _flat(Config())
    changed = replace(Config(), runs="elsewhere", name="x")
    assert _flat(changed) == _flat(Config())
