"""The losses of pcl in a loop of one's own, in one process or in several that share a batch.

python docs/examples/own_loop.py
torchrun --nproc-per-node 2 docs/examples/own_loop.py        # the same numbers, up to rounding
"""

import argparse
import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import normalize
from torch.nn.parallel import DistributedDataParallel

import pcl
from pcl.train.collectives import make_workers, mean_over_workers


class Towers(nn.Module):
    """Two encoders of one's own and a temperature that learns."""

    def __init__(self) -> None:
        super().__init__()
        self.u = nn.Sequential(nn.Linear(20, 128), nn.GELU(), nn.Linear(128, 16))
        self.v = nn.Sequential(nn.Linear(7, 128), nn.GELU(), nn.Linear(128, 16))
        self.log_temperature = nn.Parameter(torch.tensor(0.1).log())

    def forward(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the features of both, of which a score is the inner product, and the temperature."""
        return normalize(self.u(u), dim=1), normalize(self.v(v), dim=1), self.log_temperature.exp()


def batch(step: int, size: int) -> tuple[Tensor, Tensor]:
    """Return the global batch of a step, the same in every process."""
    generator = torch.Generator().manual_seed(step)
    v = torch.randn(size, 7, generator=generator)
    u = torch.sin(v @ torch.linspace(-1, 1, 140).reshape(7, 20))
    return u + 0.1 * torch.randn(size, 20, generator=generator), v


def main(steps: int, size: int) -> float:
    """Train, print losses of the global batch, and return the last one."""
    workers = make_workers()  # those of the process group, or this process alone
    torch.manual_seed(0)
    towers = Towers()
    model = DistributedDataParallel(towers) if workers.num_workers > 1 else towers
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    own = slice(workers.worker_rank, None, workers.num_workers)
    last = float("nan")
    for step in range(1, steps + 1):
        u, v = batch(step, size)
        loss, _ = pcl.conditional_loss(*model(u[own], v[own]), workers=workers)
        optimizer.zero_grad()
        loss.backward()  # DistributedDataParallel takes the mean over the processes: that of the loss of all pairs
        optimizer.step()
        last = mean_over_workers({"loss": loss}, workers)["loss"]
        if workers.worker_rank == 0 and (step % 50 == 0 or step == steps):
            print(f"step {step}: loss {last:.6f}", flush=True)
    return last


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch", type=int, default=256)
    given = parser.parse_args()
    if "WORLD_SIZE" in os.environ:  # of torchrun
        dist.init_process_group("gloo")
    main(given.steps, given.batch)
    if dist.is_initialized():
        dist.barrier()  # nobody ends while others still send
        dist.destroy_process_group()
        os._exit(0)  # where cores are few, threads of torch abort one in fifty processes that are taken apart
