"""The weights of a training by worker processes that know nothing of Ray, against which those of Ray are held."""

import torch

from pcl.config.load import load_config
from pcl.train.session import Session
from tests.conftest import GAUSSIAN
from tests.processes import run_workers


def weights_of_two(*arguments):
    """Return the last weights of configs/gaussian.yaml with overrides, trained by two processes in one go."""
    (found, _) = run_workers(weights_of_one, 2, load_config(GAUSSIAN, arguments))
    return {name: torch.from_numpy(value) for name, value in found.items()}


def weights_of_one(config):
    """Return the last weights that this worker has."""
    kept = {}
    session = Session(config, torch.device("cpu"))
    session.train(lambda *_: None, lambda state, _: kept.update(state.model.state_dict()))
    return kept
