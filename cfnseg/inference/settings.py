"""How a trained model reads an image: whole or in windows, at which scales, mirrored or not."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cfnseg.errors import Rule, check_rules

if TYPE_CHECKING:
    import torch  # takes seconds; --help should not

LARGEST_SIDE = 1024  # of windows that nobody chose, in pixels as the network sees them


@dataclass(frozen=True)
class Inference:
    """Windows and views (test-time augmentation), for evaluation and inference alike; the defaults
    are one plain pass.

    Raises:
        UserError: a value that no image can be read with, by its option's name.
    """

    window: Annotated[
        tuple[int, int] | None,
        Rule(lambda w: w is None or min(w) >= 32, "height and width of 32 pixels or more"),
    ] = None
    """Height and width of the windows in pixels of the image, 32 or more, rounded up to multiples
    of 32. None = an image up to ``max_pixels`` goes through whole, a larger one in windows of about
    1024 x 1024 for the network."""
    overlap: Annotated[
        float, Rule(lambda x: 0 <= x < 1, "a share of the window, 0 up to below 1")
    ] = 0.125
    """Share of a window that its neighbour sees as well, 0 up to below 1. Windows start at
    multiples of 32 pixels, so it is rounded up; only windows under 64 pixels can overlap less."""
    batch: Annotated[int, Rule(lambda n: n >= 1, "1 or more")] = 1
    """Windows that go through the network at once: more memory, and on a GPU more speed."""
    scales: Annotated[
        tuple[float, ...],
        Rule(
            lambda scales: len(scales) > 0 and all(0.1 <= s <= 10 for s in scales),
            "one or more factors of 0.1 to 10",
        ),
    ] = (1.0,)
    """Factors on the model's test_scale; the class probabilities of several are averaged, e.g. 0.75
    1 1.25."""
    flip: bool = False
    """Average with the mirrored image."""
    max_pixels: Annotated[int, Rule(lambda n: n >= 1, "1 or more")] = 1024 * 2048
    """The largest image, in pixels after scaling, that goes through whole where ``window`` is
    None."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "32-true"
    """Arithmetic of the network; half precision is for GPUs.

    What follows the logits is in float32.
    """

    def __post_init__(self) -> None:
        check_rules(self, lambda name: f"--{name.replace('_', '-')}")

    def autocast(self, device: torch.device) -> AbstractContextManager:
        """The context of the network's forward pass; at 32-true the caller's own stays."""
        import torch

        kind = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}.get(self.precision)
        return torch.autocast(device.type, kind) if kind else nullcontext()

    def window_for(self, size: tuple[int, int], test_scale: float = 1.0) -> tuple[int, int]:
        """Height and width of the windows of an image of ``size`` (H, W), multiples of 32; the
        image fits into one if they are as large as it."""
        scale = test_scale * max(self.scales)
        if self.window:
            window = self.window
        elif size[0] * size[1] * scale**2 <= self.max_pixels:
            window = size
        else:
            window = (max(32, int(LARGEST_SIDE / scale)),) * 2
        return -(-window[0] // 32) * 32, -(-window[1] // 32) * 32


PLAIN = Inference()
