"""The plan of the theory check, its store, its verdicts and its report."""

import json
import math
from dataclasses import replace

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from pcl.gaussian import GaussianPair, GaussianProcessPair, optimal_encoders, population_loss
from pcl.storage.place import names, place, read_bytes
from pcl.theory import store as stores
from pcl.theory.cells import Cell
from pcl.theory.plan import EXPERIMENTS, Task, plan, run_task
from pcl.theory.ranks import exact_directions, run_calibration
from pcl.theory.report import SECTIONS, calibration_table, summary, write_report
from pcl.theory.store import Store
from pcl.theory.verdicts import Check, judge, remaining_divergence, title
from tests.s3 import SLOW_DOWN, s3_server

PROCESS = GaussianProcessPair(num_points=3, num_coefficients=2, num_modes=50)
TINY = Cell(embedding_dim=2, num_pairs=500, global_batch=64, num_steps=3)


@pytest.fixture(scope="module")
def law():
    return PROCESS.law()


@pytest.fixture(scope="module")
def results():
    """Every experiment once or twice, hardly trained."""
    number = replace(TINY, embedding_dim=1)
    tasks = [
        Task("minimum", TINY),
        Task("optima", TINY),
        Task("optima", replace(TINY, loss="joint_mmd", tilting="squared_distance")),
        Task("optima", replace(TINY, weights=(2.0, 0.0), tilting="potentials")),
        Task("recipe", TINY),
        *(Task("embedding_dim", replace(TINY, embedding_dim=e), s) for e in (1, 2) for s in ("ours", "paper")),
        *(Task("global_batch", replace(TINY, global_batch=b), s) for b in (16, 32) for s in ("ours", "paper")),
        *(Task("num_pairs", replace(TINY, num_pairs=n), s) for n in (200, 400) for s in ("ours", "paper")),
        *(
            Task("negatives", replace(TINY, global_batch=b, num_shares=k), s)
            for b in (16, 32)
            for k, s in ((1, "gathered"), (2, "own"))
        ),
        Task("calibration", TINY),
        Task("calibration", replace(TINY, tilting="cosine", learned_temperature=True)),
        Task("minimum", replace(TINY, tilting="potentials", embedding_dim=1)),
        *(
            Task("plane", replace(number, loss=loss, tilting=tilting))
            for loss, tilting in (
                ("conditional", "inner_product"),
                ("conditional", "squared_distance"),
                ("joint", "inner_product"),
            )
        ),
        Task("cosine", replace(TINY, tilting="cosine", learned_temperature=True)),
    ]
    threads = torch.get_num_threads()
    found = [(task, run_task(PROCESS, task)) for task in tasks]
    torch.set_num_threads(threads)
    return found


@pytest.mark.parametrize("quick", [True, False])
def test_the_plan_holds_every_experiment_loss_and_tilting_once(quick):
    tasks = plan(GaussianProcessPair(), quick=quick)
    assert len(set(tasks)) == len(tasks)
    assert {task.experiment for task in tasks} == set(EXPERIMENTS) - ({"recipe"} if quick else set())
    grid = {(t.cell.loss, t.cell.weights, t.cell.tilting) for t in tasks if t.experiment == "optima"}
    assert len(grid) == (19 if quick else 20)
    ranks = {t.cell.embedding_dim for t in tasks if t.experiment == "optima"}
    assert ranks == ({2, 5} if quick else {1, 2, 3, 4, 5})
    assert len(plan(GaussianProcessPair(), quick=True)) < len(tasks) or quick


def test_the_recipe_of_the_paper_is_that_of_the_paper():
    paper = [t.cell for t in plan(GaussianProcessPair()) if t.series == "paper"]
    assert {(c.learning_rate, c.schedule, c.inputs, c.tilting) for c in paper} == {
        (1e-4, "constant", "raw", "inner_product")
    }
    assert all(c.num_steps == 500 * (c.num_pairs // c.global_batch) for c in paper)
    assert {c.num_pairs for c in paper} == {2000, 5000, 10_000, 20_000, 50_000, 100_000}


def test_results_are_plain_numbers_and_the_same_again(results):
    task, result = results[1]
    assert json.loads(json.dumps(result)) == result
    again = run_task(PROCESS, task)
    assert {k: v for k, v in again.items() if k != "seconds"} == {k: v for k, v in result.items() if k != "seconds"}


@pytest.mark.parametrize("tilting", ["inner_product", "squared_distance", "potentials"])
@pytest.mark.parametrize(
    ("loss", "weights"), [("conditional", (1.0, 1.0)), ("conditional", (0.0, 2.0)), ("joint", (1.0, 1.0))]
)
@pytest.mark.parametrize("rank", [1, 2])
def test_what_remains_is_the_population_loss_of_the_best_encoders(law, loss, weights, tilting, rank):
    cell = replace(TINY, loss=loss, weights=weights, tilting=tilting, embedding_dim=rank)
    formula = remaining_divergence(law.canonical_correlations(), cell)
    if (loss, weights, tilting) == ("conditional", (1.0, 1.0), "squared_distance"):
        assert formula is None
        return
    g, h, *potentials = optimal_encoders(law, rank, loss, tilting, weights)
    expected = population_loss(law, g, h, loss, tilting, weights, potentials).item()
    assert formula == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_shares_of_a_batch_are_what_workers_do_that_do_not_gather(law):
    """Two halves of 32 pairs have the bias of 32: their gradient is the mean of two such batches."""
    from pcl.theory.cells import _loss

    u, v = (torch.randn(64, 2, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    shared, _ = _loss(replace(TINY, num_shares=2), (1.0, 1.0))(u, v, torch.tensor(1.0), values=(u, v))
    halves = [
        _loss(TINY, (1.0, 1.0))(a, b, torch.tensor(1.0), values=(a, b))[0]
        for a, b in zip(u.chunk(2), v.chunk(2), strict=True)
    ]
    assert shared.item() == pytest.approx(sum(halves).item() / 2)
    with pytest.raises(ValueError, match="3 shares of a batch of 64 pairs: they must be equal"):
        _loss(replace(TINY, num_shares=3), (1.0, 1.0))


def test_ranks_are_uniform_where_the_conditional_is_exact(law):
    cell = replace(TINY, tilting="squared_distance", weights=(0.0, 2.0))
    assert exact_directions(cell) == ("v_given_u",)
    assert exact_directions(replace(cell, tilting="inner_product")) == ()
    found = run_calibration(law, cell)
    assert found["best_v_given_u"]["ranks_calibration_p_value"] > 1e-3
    assert found["best_u_given_v"]["ranks_calibration_p_value"] < 1e-3
    assert found["learned_v_given_u"]["ranks_calibration_p_value"] < 1e-3  # three steps are not enough


@pytest.mark.parametrize(
    ("loss", "weights", "exact"),
    [
        ("conditional", (1.0, 1.0), {"u_given_v", "v_given_u"}),
        ("conditional", (2.0, 0.0), {"u_given_v"}),
        ("joint", (1.0, 1.0), {"u_given_v", "v_given_u"}),
    ],
)
def test_potentials_are_calibrated_in_every_direction_that_a_loss_sees(law, loss, weights, exact):
    cell = replace(TINY, loss=loss, tilting="potentials", weights=weights)
    assert set(exact_directions(cell)) == exact
    found = run_calibration(law, cell)
    for direction in ("u_given_v", "v_given_u"):
        metrics = found[f"best_{direction}"]
        assert (metrics["ranks_calibration_p_value"] > 1e-3) == (direction in exact)
        assert (abs(metrics["ranks_coverage_50"] - 0.5) < 0.02) == (direction in exact)


def test_the_table_of_calibration_has_a_row_for_each_tilting_loss_and_kind_of_encoders(results):
    head, *rows = calibration_table(results)
    assert [row[:3] for row in rows] == [
        ["cosine", "conditional (1, 1)", "trained"],
        ["inner product", "conditional (1, 1)", "closed form"],
        ["inner product", "conditional (1, 1)", "trained"],
    ]
    assert {len(row) for row in rows} == {len(head)} == {9}
    assert calibration_table([]) == []


def test_closed_forms_pass_and_hardly_trained_encoders_fail(law, results):
    checks = judge(law, results)
    assert {check.experiment for check in checks} == set(EXPERIMENTS)
    names = [(check.experiment, check.name) for check in checks]
    assert len(set(names)) == len(names)
    assert all(check.passed for check in checks if check.experiment == "minimum")
    failed = {check.experiment for check in checks if not check.passed}
    assert {"optima", "recipe", "embedding_dim", "calibration", "plane", "cosine"} <= failed


def test_encoders_below_the_optimum_and_values_that_are_not_finite_fail(law, results):
    task, result = results[1]
    for loss in (result["best_loss"] - 1e-6, math.nan, math.inf):
        (check,) = judge(law, [(task, result | {"learned_loss": loss})])
        assert not check.passed
    (check,) = judge(law, [(task, result | {"learned_loss": result["best_loss"]})])
    assert check.passed
    assert check.name == title(task.cell)


def test_what_is_finished_is_found_again(tmp_path, results, monkeypatch):
    store, tasks = Store(tmp_path / "tasks", PROCESS), [task for task, _ in results]
    pending = store.pending(tasks)
    assert len({store.path(task) for task in tasks}) == len(pending) < len(tasks)  # several experiments share cells
    for task, result in results[:3]:
        store.save(task, result)
    assert store.load(tasks[0]) == results[0][1]
    assert not set(tasks[:3]) & set(store.pending(tasks))
    store.path(tasks[0]).write_text('{"result": ')  # cut off
    assert store.load(tasks[0]) is None
    assert Store(tmp_path / "tasks", replace(PROCESS, noise_std=0.5)).load(tasks[1]) is None
    monkeypatch.setattr(stores, "code_version", lambda: "another")
    assert store.load(tasks[1]) is None


def test_the_report_is_one_page_with_every_verdict(tmp_path, law, results):
    checks = judge(law, results)
    write_report(tmp_path, "tiny <run>", "about", law, results, checks)
    page = (tmp_path / "report.html").read_text()
    assert "tiny &lt;run&gt;" in page
    assert f"{sum(not c.passed for c in checks)} of {len(checks)} checks are outside their tolerance" in page
    assert "http" not in page
    assert 'src="data:image/png;base64,' in page
    assert all(heading in page for heading, _ in SECTIONS.values())
    figures = {path.name for path in tmp_path.glob("*.png")}
    assert page.count("<img") == len(figures) == 12
    for number in (2, 3, 4, 5, 6, 8, 9, 10):
        assert any(name.startswith(f"figure_{number}_") for name in figures)
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert [check["passed"] for check in metrics["checks"]] == [check.passed for check in checks]
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    events.Reload()
    curve = events.Scalars("theory/num_pairs/ours_error_u_given_v")
    assert [point.step for point in curve] == [200, 400]
    assert events.Scalars("theory/checks_failed")[0].value == sum(not c.passed for c in checks)


def test_tasks_and_report_may_lie_in_s3(law, results, monkeypatch):
    with s3_server() as s3:
        folder = place(f"{s3.address}/runs/tiny_theory")
        store, (task, result) = Store(folder / "tasks", PROCESS), results[0]
        assert store.load(task) is None
        store.save(task, result)
        assert store.load(task) == result
        assert task not in store.pending([task, results[1][0]])
        s3.refusal = SLOW_DOWN
        with pytest.raises(OSError, match="Service Unavailable"):  # its result is not missing
            store.pending([task])
        s3.refusal = None
        few = [(task, result) for task, result in results if task.experiment == "num_pairs"]
        checks = judge(law, few)
        write_report(folder, "tiny", "about", law, few, checks)
        assert {"metrics.json", "report.html", "tasks"} < set(names(folder))
        assert len([name for name in names(folder) if name.endswith(".png")]) == 1
        metrics = json.loads(read_bytes(folder / "metrics.json"))
        assert [check["passed"] for check in metrics["checks"]] == [check.passed for check in checks]
        assert b'src="data:image/png;base64,' in read_bytes(folder / "report.html")
        events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
        events.Reload()
        assert events.Scalars("theory/checks_failed")[0].value == sum(not c.passed for c in checks)


def test_the_summary_counts():
    check = Check("plane", "a", "b", 1.0, 0.0, 2.0)
    assert summary([check, check._replace(measured=3.0)])[1] == ["Two numbers", "1", "2"]


def test_a_perfect_process_of_white_pairs_has_nothing_to_learn():
    """Independent u and v: no divergence remains and no encoder may find any."""
    law = GaussianPair(torch.eye(2), torch.zeros(2, 2), torch.eye(2))
    assert remaining_divergence(law.canonical_correlations() + 1e-12, TINY) == pytest.approx(0, abs=1e-12)
