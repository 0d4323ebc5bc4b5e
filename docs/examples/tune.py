"""A search over learning rates and dimensions with Ray Tune; for a list of variants there is pcl sweep.

python docs/examples/tune.py
"""

import argparse
import tempfile
from typing import Any

import numpy as np

import pcl
from pcl.cluster.connection import connected  # before ray: then it listens on this machine only

# isort: split
from ray import tune


def make_pairs(num_pairs: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return u (n, 20) and v (n, 7) of one law, others with every seed."""
    generator = np.random.default_rng(seed)
    v = generator.normal(size=(num_pairs, 7))
    u = np.sin(v @ np.linspace(-1, 1, 140).reshape(7, 20))
    return u + 0.1 * generator.normal(size=u.shape), v


def trial(setting: dict[str, Any]) -> None:
    """Train with a setting, and report how well the pairs of another draw are told apart: less is better."""
    (u, v), (u_test, v_test) = make_pairs(setting["num_pairs"], seed=0), make_pairs(500, seed=1)
    chosen = {key: setting[key] for key in ("learning_rate", "embedding_dim")}
    model = pcl.fit(u, v, epochs=setting["epochs"], show=False, **chosen)
    u_given_v = model.conditional("u_given_v", u_test)
    tune.report({"loss": -float(u_given_v.log_weights(model.features_v(v_test)).diagonal().mean())})


def main(num_trials: int, num_pairs: int, epochs: int) -> dict[str, Any]:
    """Search, print the best setting, and return it."""
    space = {"learning_rate": tune.loguniform(3e-4, 3e-2), "embedding_dim": tune.choice([4, 8, 16, 32])}
    with connected(num_cpus=2), tempfile.TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            trial,
            param_space=space | {"num_pairs": num_pairs, "epochs": epochs},
            tune_config=tune.TuneConfig(metric="loss", mode="min", num_samples=num_trials),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        best = tuner.fit().get_best_result()
    found: dict[str, Any] = {"loss": best.metrics["loss"]} | {key: best.config[key] for key in space}
    print(", ".join(f"{key} {value:.4g}" for key, value in found.items()))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=20)
    given = parser.parse_args()
    main(given.trials, given.pairs, given.epochs)
