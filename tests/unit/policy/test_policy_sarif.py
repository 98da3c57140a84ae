"""The SARIF log is one that other programs read, and says the same as the plain lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sarif_pydantic import Sarif  # type: ignore[import-untyped]

from mcpwatch import __version__
from mcpwatch.policy.advice.subject import Advice
from mcpwatch.policy.lint import CODES
from mcpwatch.policy.sarif import sarif_log
from mcpwatch.text import safe

ADVICE = [
    Advice(4, "high", "shell-enabled", safe("bash runs")),
    Advice(7, "medium", "link-outside", safe("a leads out")),
    Advice(9, "low", "over", safe("b is over")),
]


def log(*paths: str, unusable: tuple[str, ...] = ()) -> dict[str, Any]:
    found = [(Path(path), ADVICE) for path in paths]
    made = sarif_log(found, [safe(text) for text in unusable], Path("/srv/repo"))
    read: dict[str, Any] = json.loads(json.dumps(made))
    return read


def unknown(model: object) -> list[str]:
    """Names in a log that the SARIF models know nothing of: they let them pass, and remember them."""
    found: list[str] = []
    if isinstance(model, BaseModel):
        found += model.model_extra or {}
        for name in type(model).model_fields:
            found += unknown(getattr(model, name))
    elif isinstance(model, list):
        for item in model:
            found += unknown(item)
    return found


def test_the_log_is_sarif_2_1_0_without_a_name_that_sarif_does_not_have() -> None:
    made = log("a.yaml", "b.yaml", unusable=("c.yaml:1: bad",))
    model = Sarif.model_validate(made)
    assert made["version"] == "2.1.0"
    assert unknown(model) == ["toolExecutionNotifications"], "a name of SARIF that the models lack"
    assert "nonsense" in unknown(Sarif.model_validate(made | {"nonsense": 1})), "this test would notice"
    assert model.model_dump(by_alias=True, mode="json", exclude_unset=True) == made


def test_every_piece_of_advice_is_a_result_with_file_line_level_and_message() -> None:
    [run] = log("deploy/policy.yaml")["runs"]
    shown = [
        (
            result["ruleId"],
            result["level"],
            result["locations"][0]["physicalLocation"]["region"]["startLine"],
            result["message"]["text"],
        )
        for result in run["results"]
    ]
    assert shown == [
        ("shell-enabled", "error", 4, "bash runs"),
        ("link-outside", "warning", 7, "a leads out"),
        ("over", "note", 9, "b is over"),
    ]


def test_results_point_at_their_rules_and_all_checks_are_rules() -> None:
    [run] = log("policy.yaml")["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == list(CODES)
    assert {rule["shortDescription"]["text"] for rule in rules} == set(CODES.values())
    assert all(rules[result["ruleIndex"]]["id"] == result["ruleId"] for result in run["results"])
    assert run["tool"]["driver"]["version"] == __version__


def test_files_below_the_folder_are_named_relative_to_it_and_others_in_full() -> None:
    def uri(path: str) -> dict[str, str]:
        location: dict[str, str] = log(path)["runs"][0]["results"][0]["locations"][0]["physicalLocation"][
            "artifactLocation"
        ]
        return location

    root = "%SRCROOT%"
    assert uri("policy.yaml") == {"uri": "policy.yaml", "uriBaseId": root}
    assert uri("./a/../b c/#1.yaml") == {"uri": "b%20c/%231.yaml", "uriBaseId": root}
    assert uri("/srv/repo/x.yaml") == {"uri": "x.yaml", "uriBaseId": root}
    assert uri("a:b.yaml") == {"uri": "a%3Ab.yaml", "uriBaseId": root}, "no scheme"
    assert uri("\udcff.yaml") == {"uri": "%FF.yaml", "uriBaseId": root}, "a name that is no UTF-8"
    assert uri("../policy.yaml") == {"uri": "file:///srv/policy.yaml"}
    assert uri("/srv/repository/x.yaml") == {"uri": "file:///srv/repository/x.yaml"}


def test_files_that_could_not_be_used_make_the_run_unsuccessful() -> None:
    [good] = log("a.yaml")["runs"][0]["invocations"]
    assert good == {"executionSuccessful": True, "toolExecutionNotifications": []}
    [bad] = log("a.yaml", unusable=("b.yaml:3: no",))["runs"][0]["invocations"]
    assert not bad["executionSuccessful"]
    assert [note["message"]["text"] for note in bad["toolExecutionNotifications"]] == ["b.yaml:3: no"]


def test_equal_input_gives_an_equal_log() -> None:
    assert json.dumps(log("a.yaml")) == json.dumps(log("a.yaml"))
