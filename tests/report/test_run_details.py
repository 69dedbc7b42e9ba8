import json

from results_files import write_results

from cvpods_ext.report.run_details import loss_curves, runs_table
from cvpods_ext.report.runs import collect


def test_every_run_is_a_row_with_its_seed(tmp_path):
    for seed in (0, 1):
        write_results(tmp_path / str(seed), "net", {"AP": 10.0 + seed}, seed=seed)
    table = runs_table(collect([tmp_path]).entries)
    assert [(row[0].text, row[1].text) for row in table.rows] == [("net", "0"), ("net", "1")]


def test_the_losses_of_a_run_are_a_curve_where_its_records_lie_beside_the_results(tmp_path):
    write_results(tmp_path / "0", "net", {"AP": 10.0}, seed=0)
    assert loss_curves(collect([tmp_path]).entries) == ""
    records = [{"iteration": i, "total_loss": 4.0 / (1 + i)} for i in range(400)]
    (tmp_path / "0" / "metrics.jsonl").write_text("".join(json.dumps(one) + "\n" for one in records))
    html = loss_curves(collect([tmp_path]).entries)
    assert html.count("<polyline") == 1
    assert len(html.split('points="')[1].split('"')[0].split()) == 150


def test_a_loss_that_is_no_number_costs_its_point_only(tmp_path):
    write_results(tmp_path / "0", "net", {"AP": 10.0}, seed=0)
    lines = ['{"iteration": 1, "total_loss": 3.0}', '{"iteration": 2, "total_loss": NaN}', '{"iteration": 3, "x": 1}']
    lines.append('{"iteration": 4, "total_loss": 2.0}')
    (tmp_path / "0" / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    html = loss_curves(collect([tmp_path]).entries)
    assert len(html.split('points="')[1].split('"')[0].split()) == 2
