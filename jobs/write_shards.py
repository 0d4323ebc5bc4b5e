"""Write the shards of a data source: one Ray task a shard; a build that was cut off continues."""

from functools import partial
from pathlib import Path

from pcl.cluster import connected, run_tasks
from pcl.command import job, progress
from pcl.config import Config, data_identity
from pcl.data.gaussian import GaussianProcessSource, process_of
from pcl.data.manifest import load_manifest
from pcl.data.mnist import MnistSource
from pcl.data.shards import Source, begin_build, build_shard, finish_build, plan_shards


def make_source(config: Config) -> Source:
    """Return the source that a configuration names."""
    if config.data.source == "mnist":
        return MnistSource(Path(config.data.root))
    settings = config.data.gaussian_process
    process = process_of(vars(settings))
    return GaussianProcessSource(settings.num_train, settings.num_test, config.data.seed, process)


def main(config: Config) -> None:
    """Build the folder of shards, or find it finished."""
    root, identity = Path(config.data.shards), data_identity(config)
    source = make_source(config)
    plans = plan_shards(source, config.data.num_shards)
    if begin_build(root, {"config": identity, "source": source.provenance()}):
        build = partial(build_shard, root=root, record_pairs=config.data.record_pairs)
        with connected(num_cpus=1):
            tasks = run_tasks(build, source, plans, config.build.num_tasks)
            built = [(plan, *result) for plan, result in progress(tasks, len(plans), "shards", "shard")]
        finish_build(root, source, identity, config.data.record_pairs, built)
    manifest = load_manifest(root)
    for split, shards in manifest.splits.items():
        size = sum(shard.bytes for shard in shards) / 1e6
        print(f"{split}: {manifest.num_pairs(split):,} pairs in {len(shards)} shards, {size:.1f} MB")
    print(f"shards: {root}")


if __name__ == "__main__":
    job(main, __doc__)
