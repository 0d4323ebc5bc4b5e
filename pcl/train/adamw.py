"""AdamW as torch has it, in a process that does not import torch's compiler."""

__all__ = ["AdamW"]

import inspect

import torch
from torch.optim import Optimizer


class AdamW(torch.optim.AdamW):
    """Adam with decoupled weight decay: the numbers, arguments and state of ``torch.optim.AdamW``.

    Torch wraps these methods in what keeps its compiler out of them, and imports the compiler for that, which takes a
    second of every process that makes an optimiser. Here they are bare, so a step cannot be part of what is compiled.

    Example:
        >>> weight = torch.nn.Parameter(torch.tensor([1.0]))
        >>> optimizer = AdamW([weight], lr=0.5, weight_decay=0.0)
        >>> weight.grad = torch.tensor([3.0])
        >>> optimizer.step()
        >>> round(weight.item(), 4)
        0.5
    """

    add_param_group = inspect.unwrap(Optimizer.add_param_group)
    zero_grad = inspect.unwrap(Optimizer.zero_grad)
    state_dict = inspect.unwrap(Optimizer.state_dict)
    load_state_dict = inspect.unwrap(Optimizer.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(torch.optim.AdamW.step))
