"""A study as users start it, killed in the middle: no run is done twice, and none is lost."""

import csv
import json
from pathlib import Path

CURVE = f"--config={Path(__file__).parent / 'configs' / 'small_curve.py'}"
RUNS = 4


def test_a_killed_transfer_curve_resumes_and_ends_with_tables_and_a_figure(place):
    def finished():
        return {file: file.stat().st_mtime_ns for file in (place.cwd / "runs").glob("*/result.json")}

    process = place.start(CURVE, "--workdir=study")
    killed = place.wait_for(process, lambda: len(finished()) >= 2)
    process.kill()
    process.wait()
    before = finished()
    assert killed, place.output() + place.output("stderr.txt")
    assert 2 <= len(before) < RUNS
    assert f"{RUNS} runs, {RUNS} remaining" in place.output()

    place.launch(CURVE, "--workdir=study").assert_is_done()
    after = finished()
    assert len(after) == RUNS
    assert {file: after[file] for file in before} == before

    study = place.cwd / "study"
    with (study / "runs.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    results = {row["folder"]: json.loads((place.cwd / row["folder"] / "result.json").read_text()) for row in rows}
    assert len(results) == RUNS - 1
    for row in rows:
        assert float(row["test accuracy"]) == results[row["folder"]]["test"]["accuracy"]
    table = (study / "table.md").read_text(encoding="utf-8").splitlines()
    assert [line.split("|")[1].strip() for line in table[2:5]] == ["features", "fine_tuning", "from_scratch"]
    assert (study / "curves.png").read_bytes().startswith(b"\x89PNG")

    again = place.launch(CURVE, "--workdir=study")
    again.assert_is_done()
    assert f"{RUNS} runs, 0 remaining" in again.out
    assert finished() == after
    assert "epochs of" not in again.out
