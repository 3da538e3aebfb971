"""Training step of CFN against that of its bare encoder, in one run: python tools/bench_step.py [--encoder E] [--size H W]"""

import statistics
import time

import torch
import tyro

from cfnseg.cli import run_tool
from cfnseg.config import Loss, Model


def bench(encoder: str = "tf_efficientnet_lite0", size: tuple[int, int] = (360, 480), batch: int = 8, rounds: int = 7,
          width: int = 128, grid: tuple[int, int] = (6, 8), classes: int = 11, keep_memory: bool = True,
          channels_last: bool = True) -> None:
    """Print the median CPU step (forward, loss, backward) of both and the median of their ratios, taken in turns.

    Args:
        encoder, size, batch, width, grid, classes: what is trained.
        rounds: measured steps of each.
        keep_memory: let the allocator keep freed memory, as training does.
        channels_last: memory format.
    """
    from cfnseg.engine.hardware import keep_freed_memory
    from cfnseg.engine.loss import batch_loss
    from cfnseg.models.build import build_model

    if keep_memory:
        keep_freed_memory()
    memory = torch.channels_last if channels_last else torch.contiguous_format
    net = build_model(Model(encoder=encoder, encoder_weights=None, width=width, grid=grid), classes).to(memory_format=memory)
    images = torch.randint(0, 256, (batch, 3, *size), dtype=torch.uint8).contiguous(memory_format=memory)
    mask = torch.randint(0, classes, (batch, *size), dtype=torch.uint8)
    region = torch.tensor([[0.1, 0.1, 0.8, 0.9]]).expand(batch, 4)

    def bare() -> None:
        sum(stage.mean() for stage in net.encoder(images)).backward()

    def whole() -> None:
        batch_loss(net(images, region), mask, Loss(), None).backward()

    times = []
    for step in range(rounds + 2):  # two to warm up
        row = []
        for run in (bare, whole):
            net.zero_grad()
            start = time.perf_counter()
            run()
            row.append(time.perf_counter() - start)
        times += [row] * (step > 1)
    ratio = statistics.median(b / a for a, b in times)
    alone, full = (statistics.median(column) for column in zip(*times))
    print(f"{encoder}, {batch} x {size[0]}x{size[1]}, {torch.get_num_threads()} threads: encoder {alone:.3f} s, CFN {full:.3f} s, "
          f"ratio {ratio:.2f}")


if __name__ == "__main__":
    run_tool(lambda: tyro.cli(bench))
