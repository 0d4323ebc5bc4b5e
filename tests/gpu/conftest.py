"""The device of these tests: CUDA, or the one that PCL_GPU_TESTS_ON names, so that a CPU can try the tests."""

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device():
    name = os.environ.get("PCL_GPU_TESTS_ON", "cuda")
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("torch sees no GPU here")
    return torch.device(name)
