"""Two arrays of pairs, a learned conditional of them, and what needs no learning beside it.

Something lies on a square. Seven beacons (v) measure how far it is from each, twenty gauges (u), which stand in a line
through the middle, how strongly they feel it. So v tells where it is, and u only that or its mirror image: u given v is
a curved function and noise, v given u has two modes.
"""

import argparse

import numpy as np

import pcl

BEACONS = np.array([[-1.2, -0.8], [-1.0, 1.1], [-0.2, -1.3], [0.1, 1.2], [0.8, -1.0], [1.1, 0.2], [1.3, 1.3]])
GAUGES = np.stack([np.linspace(-1, 1, 20), np.zeros(20)], 1)
NOISE = 0.05


def without_noise(places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What gauges (n, 20) and beacons (n, 7) would measure of things that lie at places (n, 2)."""
    square, distance = (((places[:, None] - points) ** 2).sum(-1) for points in (GAUGES, BEACONS))
    return np.exp(-4 * square), np.sqrt(distance)


def make_pairs(num_pairs: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return u (n, 20), v (n, 7) and the places (n, 2) of which they tell."""
    generator = np.random.default_rng(seed)
    places = generator.uniform(-1, 1, (num_pairs, 2))
    u, v = (exact + NOISE * generator.normal(size=exact.shape) for exact in without_noise(places))
    return u, v, places


def linear(given: np.ndarray, wanted: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Return the least-squares prediction of what is wanted, linear in what is given."""
    first, last = (np.column_stack([np.ones(len(part)), part]) for part in (given, asked))
    found: np.ndarray = last @ np.linalg.lstsq(first, wanted, rcond=None)[0]
    return found


def exact(v: np.ndarray) -> np.ndarray:
    """Return the true E[u|v], by a sum over places: what nobody can beat."""
    side = np.linspace(-1, 1, 81)
    gauges, beacons = without_noise(np.stack(np.meshgrid(side, side), -1).reshape(-1, 2))
    distance = (v**2).sum(1)[:, None] - 2 * v @ beacons.T + (beacons**2).sum(1)
    weights = np.exp(-(distance - distance.min(1, keepdims=True)) / (2 * NOISE**2))
    found: np.ndarray = weights @ gauges / weights.sum(1, keepdims=True)
    return found


def main(num_pairs: int, epochs: int) -> dict[str, float]:
    """Train, print the errors of four predictions of u given v, and return them."""
    u, v, _ = make_pairs(num_pairs)
    u_test, v_test, _ = make_pairs(1000, seed=1)

    model = pcl.fit(u, v, epochs=epochs)
    u_given_v = model.conditional("u_given_v", u)  # carried by the u that are known
    learned = u_given_v.mean(model.features_v(v_test), u)

    predictions = {
        "the mean of all u": np.broadcast_to(u.mean(0), u_test.shape),
        "linear in v": linear(v, u, v_test),
        "E[u|v], learned": learned,
        "E[u|v], exact": exact(v_test),
    }
    errors = {name: float(np.sqrt(((u_test - one) ** 2).mean())) for name, one in predictions.items()}
    for name, error in errors.items():
        print(f"{name:20}{error:.4f}")
    return errors


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5000)
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args()
    main(given.pairs, given.epochs)
