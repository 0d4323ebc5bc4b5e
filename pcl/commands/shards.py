"""Write the shards of a data source: one task a shard; a build that was cut off continues.

On a folder of finished shards it reads them all, compares their SHA-256, and writes those again that are missing or
damaged.

--dry-run, the same as build.dry_run=true, prints pairs, bytes and memory, and writes nothing.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

from pcl.cluster.address import check_shared
from pcl.cluster.tasks import task_runner
from pcl.commands.command_line import Guide, job, progress, progress_of_many
from pcl.config.identity import data_identity, differing
from pcl.config.load import Config
from pcl.data.manifest import load_manifest
from pcl.data.shards import begin_build, build_shard, claimed, finish_build, plan_shards, to_write
from pcl.data.summary import describe_needs, describe_statistics, format_sizes, planned_sizes, written_sizes
from pcl.errors import printable
from pcl.storage.stored import differing_keys
from pcl.train.parts import make_source

GUIDE = Guide(
    __doc__,
    examples=(
        "configs/mnist.yaml",
        "--dry-run configs/ocean.yaml 'data.ocean.paths=[/data/*.nc]'",
        "configs/mnist.yaml data.root=/data/mnist data.shards=/shared/mnist",
    ),
    keys=("data.root", "data.shards", "data.num_shards", "data.record_pairs", "build.num_tasks", "build.memory_mb"),
    flags={"--dry-run": "build.dry_run=true"},
    takes_variants=True,
)


def differing_identity(recorded: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Return the keys in which shards differ from those of a configuration."""
    config = differing({"data": recorded["config"]}, {"data": wanted["config"]})
    return config + differing_keys({"source": recorded["source"]}, {"source": wanted["source"]})


def main(config: Config) -> None:
    """Build the folder of shards, or find it finished."""
    check_shared(data__shards=config.data.shards)
    root, identity = config.shard_root, data_identity(config)
    source = make_source(config, progress_of_many)
    plans, record_pairs = plan_shards(source, config.data.num_shards), config.data.record_pairs
    wait_s = config.workers.resources_timeout_s
    whole = {"config": identity, "source": source.provenance()}
    if config.build.dry_run:
        print(*format_sizes(planned_sizes(source, plans, record_pairs)), sep="\n")
        print(*map(printable, describe_needs(source, plans, record_pairs)), sep="\n")
        begin_build(root, whole, claim=False, differing=differing_identity)
        print(f"dry run: nothing was written to {root}")
        return
    missing = to_write(root, whole, plans, differing_identity)
    print(f"{len(plans) - len(missing)} of {len(plans)} shards verified, {len(missing)} to write", flush=True)
    if missing:
        with claimed(root, whole, differing_identity):
            # again: another process may just have written them
            missing = to_write(root, whole, missing, differing_identity)
            build = partial(build_shard, root=root, record_pairs=record_pairs)
            with task_runner() as run_tasks:
                tasks = run_tasks(build, source, missing, config.build.num_tasks, timeout_s=wait_s)
                built = [(plan, *result) for plan, result in progress(tasks, len(missing), "shards", "shard")]
            finish_build(root, source, identity, record_pairs, built)
    manifest = load_manifest(root)
    print(*format_sizes(written_sizes(manifest)), sep="\n")
    for line in (*source.notes(record_pairs), *describe_statistics(manifest)):
        print(printable(line))
    print(f"shards: {root}")


def command(program: str, given: list[str]) -> None:
    """Write shards as a command line says."""
    job(main, GUIDE, program, given)
