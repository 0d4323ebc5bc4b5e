"""Check what training reaches against what Gaussian theory expects: figures, metrics.json, report.html, TensorBoard.

--quick, the same as theory.quick=true, takes two minutes on two cores. A check outside its tolerance makes the exit
code 1. Every experiment is cut into tasks; the same command goes on from those that are finished.
"""

import time
from functools import partial

from pcl.cluster.address import check_shared
from pcl.cluster.tasks import task_runner
from pcl.commands.command_line import Guide, job, progress, watch
from pcl.config.load import Config
from pcl.errors import BadInputError, RunFailedError
from pcl.evaluation.tables import format_table
from pcl.problems.gaussian_process.source import process_of
from pcl.storage.place import patiently, place
from pcl.theory.plan import plan, run_task
from pcl.theory.report import summary, write_report
from pcl.theory.store import Store, code_version
from pcl.theory.verdicts import judge

GUIDE = Guide(
    __doc__,
    examples=(
        "--quick configs/gaussian.yaml",
        "configs/gaussian.yaml",
        "configs/gaussian.yaml seed=1 name=seed_1",
    ),
    keys=("name", "storage", "seed", "theory.quick", "theory.num_tasks"),
    flags={"--quick": "theory.quick=true"},
)


def main(config: Config) -> None:
    """Run what is not finished, judge, and report."""
    if config.data.source != "gaussian_process":
        raise BadInputError(f"data.source={config.data.source}: theory is known for gaussian_process only")
    process = process_of(vars(config.data.sections["gaussian_process"]))
    try:
        law = process.law()
    except ValueError as error:
        raise BadInputError(f"data.gaussian_process: {error}") from error
    check_shared(storage=config.storage)
    folder = place(config.storage) / f"{config.name}_theory"
    store, started = Store(folder / "tasks", process), time.perf_counter()
    tasks = plan(process, seed=config.seed, quick=config.theory.quick)
    pending = store.pending(tasks)
    kind = "quick" if config.theory.quick else "full"
    print(f"theory check, {kind}: {len(tasks)} tasks, {len(pending)} of them to do; finished ones are kept in {folder}")
    if pending:
        with task_runner() as run_tasks:
            done = run_tasks(
                run_task,
                process,
                pending,
                config.theory.num_tasks,
                timeout_s=config.workers.resources_timeout_s,
                background=True,
            )
            for task, result in progress(done, len(pending), "theory", "task"):
                patiently(partial(store.save, task, result), config.workers.storage_timeout_s)
    results = store.results(tasks)
    checks = judge(law, results)
    about = f"{kind} check of {len(tasks)} tasks, seed {config.seed}, code {code_version()}"
    write_report(folder, config.name, about, law, results, checks)
    print(f"\n{format_table(summary(checks))}\n")
    for check in checks:
        if not check.passed:
            print(f"FAILED  {check.experiment}: {check.name}: {check.measured:.4g}, expected {check.expected}")
    print(f"report: {folder / 'report.html'} ({time.perf_counter() - started:.0f} s)")
    print(watch(config.storage))
    failed = sum(not check.passed for check in checks)
    if failed:
        raise RunFailedError(f"{failed} of {len(checks)} checks are outside their tolerance, see {folder}/report.html")


def command(program: str, given: list[str]) -> None:
    """Check the theory as a command line says."""
    job(main, GUIDE, program, given)
