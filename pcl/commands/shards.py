"""Write the shards of a data source: one Ray task a shard; a build that was cut off continues.

On a folder of finished shards it reads them all, compares their SHA-256, and writes those again that are missing or
damaged.

--dry-run, the same as build.dry_run=true, prints pairs, bytes and memory, and writes nothing.
"""

from functools import partial
from pathlib import Path

from pcl.cluster.connection import check_shared, connected, run_tasks
from pcl.commands.command_line import job, progress, progress_of_many
from pcl.config.identity import data_identity
from pcl.config.load import Config
from pcl.data.manifest import load_manifest
from pcl.data.shards import Source, begin_build, build_shard, claimed, finish_build, plan_shards, to_write
from pcl.data.summary import describe_needs, describe_statistics, format_sizes, planned_sizes, written_sizes
from pcl.errors import printable
from pcl.problems.gaussian_process.source import GaussianProcessSource, process_of
from pcl.problems.mnist.source import MnistSource
from pcl.problems.ocean.source import ocean_source
from pcl.problems.streamfunction.source import streamfunction_source


def make_source(config: Config) -> Source:
    """Return the source that a configuration names."""
    if config.data.source == "mnist":
        return MnistSource(Path(config.data.root))
    if config.data.source == "ocean":
        data, memory_mb = config.data, config.build.memory_mb
        return ocean_source(vars(data.ocean), vars(data.drifters), data.seed, memory_mb, progress_of_many)
    if config.data.source == "streamfunction":
        flows, difference = streamfunction_source(vars(config.data.streamfunction), config.data.seed)
        step = flows.law.time_step / flows.substeps
        print(f"step {step:.3g}, {flows.substeps} a position: {difference:.1e} widths from half of it", flush=True)
        return flows
    settings = config.data.gaussian_process
    process = process_of(vars(settings))
    return GaussianProcessSource(settings.num_train, settings.num_test, config.data.seed, process)


def main(config: Config) -> None:
    """Build the folder of shards, or find it finished."""
    check_shared(data__shards=config.data.shards)
    root, identity = Path(config.data.shards), data_identity(config)
    source = make_source(config)
    plans, record_pairs = plan_shards(source, config.data.num_shards), config.data.record_pairs
    wait_s = config.workers.resources_timeout_s
    whole = {"config": identity, "source": source.provenance()}
    if config.build.dry_run:
        print(*format_sizes(planned_sizes(source, plans, record_pairs)), sep="\n")
        print(*map(printable, describe_needs(source, plans, record_pairs)), sep="\n")
        begin_build(root, whole, claim=False)
        print(f"dry run: nothing was written to {root}")
        return
    missing = to_write(root, whole, plans)
    print(f"{len(plans) - len(missing)} of {len(plans)} shards verified, {len(missing)} to write", flush=True)
    if missing:
        with claimed(root, whole):
            missing = to_write(root, whole, missing)  # again: another process may just have written them
            build = partial(build_shard, root=root, record_pairs=record_pairs)
            with connected(num_cpus=1):
                tasks = run_tasks(build, source, missing, config.build.num_tasks, timeout_s=wait_s)
                built = [(plan, *result) for plan, result in progress(tasks, len(missing), "shards", "shard")]
            finish_build(root, source, identity, record_pairs, built)
    manifest = load_manifest(root)
    print(*format_sizes(written_sizes(manifest)), sep="\n")
    if config.data.source == "ocean":
        lines = *describe_needs(source, plans, record_pairs), *describe_statistics(manifest)
        print(*map(printable, lines), sep="\n")
    print(f"shards: {root}")


def command(program: str, given: list[str]) -> None:
    """Write shards as a command line says."""
    job(main, __doc__, program, given, flags={"--dry-run": "build.dry_run=true"})
