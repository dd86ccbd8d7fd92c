"""What the command line answers with `--json`: the keys of the contract, exactly."""

import json
from pathlib import Path

import pytest

from farm.answers import Answer, compare, metric_label, regressions, results, text_table
from farm.cli.__main__ import main
from farm.limits import held_samples
from farm.results import queries
from farm.results.queries import EVERYTHING
from farm.results.tables import ComparisonRow
from farm.verdicts import told
from tests.helpers.campaigns import SyntheticFarm, build_synthetic_farm, revision_at

CONTRACT_OF_COMPARE = "cluster, scenario, metric, unit, ratio, low, high, n, replication, verdict, delta"
CONTRACT_OF_REGRESSIONS = (
    "series, cluster, scenario, metric, kind, revision, index, ratio, low, high, direction, "
    "last_good, first_bad, candidates, state"
)


@pytest.fixture(scope="module")
def farm(tmp_path_factory: pytest.TempPathFactory) -> SyntheticFarm:
    """Check-in 2 makes first writes slower, check-in 3 cannot boot."""
    home: Path = tmp_path_factory.mktemp("farm")
    farm = build_synthetic_farm(home, {2: lambda kind: 2.9 if kind.metric.name == "first_write_us" else 1.0})
    farm.see_check_ins(3)
    for session in farm.ask("history", [1, 2, 3]):
        farm.measure(session, broken=[3])
    farm.judge()
    return farm


def test_results_are_samples_with_their_cluster(farm: SyntheticFarm) -> None:
    answers = results(held_samples(farm.engine, EVERYTHING, cluster="acorn", scenario="cow_start"))
    assert len(answers) == 5 * 3 * 9
    assert {answer["cluster"] for answer in answers} == {"acorn"}
    assert {answer["params"]["method"] for answer in answers} == {"overlay", "reflink", "copy"}
    assert {"session", "block", "revision", "metric", "unit", "value", "valid", "void_reason", "time"} <= answers[
        0
    ].keys()
    assert {answer["limit"] for answer in answers} == {answer["share"] for answer in answers} == {None}
    assert all(answer["limit_why"] for answer in answers), "why nothing is known"
    assert json.loads(json.dumps(answers)) == answers


def test_compare_has_the_keys_of_the_contract(farm: SyntheticFarm) -> None:
    answers = compare(farm.comparisons())
    assert {", ".join(answer) for answer in answers} == {CONTRACT_OF_COMPARE}
    assert {answer["cluster"] for answer in answers} == {"acorn", "birch", "acorn/birch"}
    assert "first_write_us[method=copy]" in {answer["metric"] for answer in answers}
    assert json.loads(json.dumps(answers)) == answers


def test_the_terminal_says_why_there_is_no_verdict(
    farm: SyntheticFarm, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FARM_HOME", str(farm.settings.home))
    monkeypatch.delenv("SETTINGS", raising=False)
    assert main(["compare"]) == main(["compare", "acorn", "birch"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert any(
        "create_ms" in line and line.endswith("declared not judged: its figures are shown, and accuse nobody")
        for line in lines
    )
    assert not [line for line in lines if line.endswith("not judged")]


@pytest.mark.parametrize(
    ("between", "verdict", "words"),
    [
        ("revisions", "not judged", "not judged: too few blocks or sessions so far"),
        ("clusters", "not judged", "not judged: too few sessions matched in time so far"),
        ("clusters", "inconclusive", "inconclusive"),
    ],
)
def test_what_waits_for_more_says_so(between: str, verdict: str, words: str) -> None:
    assert told(ComparisonRow(scenario="boot", metric="answer_ms", between=between, verdict=verdict)) == words


def test_regressions_have_the_keys_of_the_contract(farm: SyntheticFarm) -> None:
    answers = regressions(farm.findings(), queries.check_ins(farm.engine, EVERYTHING))
    assert {", ".join(answer) for answer in answers} == {CONTRACT_OF_REGRESSIONS}
    slow = [answer for answer in answers if answer["revision"] == revision_at(2)]
    assert {answer["series"] for answer in slow} >= {"example/acorn/cow_start-1/first_write_us[method=copy]"}
    assert all(answer["index"] == 2 and answer["last_good"] == revision_at(1) for answer in slow)
    assert slow[0]["candidates"] == [{"revision": revision_at(2), "probability": 1.0}]
    broken = [answer for answer in answers if answer["revision"] == revision_at(3)]
    assert {(answer["metric"], answer["direction"], answer["ratio"]) for answer in broken} == {
        ("outcome", "broken", None)
    }
    assert json.loads(json.dumps(answers)) == answers


@pytest.mark.parametrize(
    ("params", "label"),
    [({}, "create_ms"), ({"method": "copy"}, "create_ms[method=copy]"), ({"b": "2", "a": "1"}, "create_ms[a=1,b=2]")],
)
def test_a_metric_is_written_with_its_parameters(params: dict[str, str], label: str) -> None:
    assert metric_label("create_ms", params) == label


def test_a_text_table_is_aligned() -> None:
    answers: list[Answer] = [{"metric": "boot", "ratio": 1.361234}, {"metric": "first_write_us", "ratio": None}]
    assert text_table(answers, ["metric", "ratio"]).splitlines() == [
        "metric          ratio",
        "boot            1.361",
        "first_write_us  -",
    ]


def test_a_text_table_without_answers_has_its_headings() -> None:
    assert text_table([], ["metric", "ratio"]) == "metric  ratio"
