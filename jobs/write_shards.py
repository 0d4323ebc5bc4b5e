"""Write the shards of a data source: one Ray task a shard; a build that was cut off continues."""

from pathlib import Path

import ray

from pcl.cluster import connected
from pcl.command import job, progress
from pcl.config import Config, data_identity
from pcl.data.gaussian import GaussianProcessSource
from pcl.data.manifest import load_manifest
from pcl.data.mnist import MnistSource
from pcl.data.shards import Source, begin_build, build_shard, finish_build, plan_shards
from pcl.errors import BadInputError
from pcl.gaussian.process import GaussianProcessPair


def make_source(config: Config) -> Source:
    """Return the source that a configuration names."""
    if config.data.source == "mnist":
        return MnistSource(Path(config.data.root))
    law = vars(config.data.gaussian_process).copy()
    num_train, num_test = law.pop("num_train"), law.pop("num_test")
    try:
        return GaussianProcessSource(num_train, num_test, config.data.seed, GaussianProcessPair(**law))
    except ValueError as error:
        raise BadInputError(f"data.gaussian_process: {error}") from error


def main(config: Config) -> None:
    """Build the folder of shards, or find it finished."""
    root, identity = Path(config.data.shards), data_identity(config)
    source = make_source(config)
    plans = plan_shards(source, config.data.num_shards)
    if begin_build(root, {"config": identity, "source": source.provenance()}):
        with connected(num_cpus=1):
            shared = ray.put(source)
            task = ray.remote(num_cpus=1, max_retries=3)(build_shard)
            waiting = {task.remote(shared, plan, root, config.data.record_pairs): plan for plan in plans}
            built = []

            def finished():  # noqa: ANN202
                pending = list(waiting)
                while pending:
                    (done,), pending = ray.wait(pending)
                    yield done

            for done in progress(finished(), len(plans), "shards", "shard"):
                built.append((waiting[done], *ray.get(done)))
        finish_build(root, source, identity, config.data.record_pairs, built)
    manifest = load_manifest(root)
    for split, shards in manifest.splits.items():
        size = sum(shard.bytes for shard in shards) / 1e6
        print(f"{split}: {manifest.num_pairs(split):,} pairs in {len(shards)} shards, {size:.1f} MB")
    print(f"shards: {root}")


if __name__ == "__main__":
    job(main, __doc__)
