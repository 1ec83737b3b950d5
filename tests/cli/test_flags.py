"""What all verbs do with their command lines."""

from __future__ import annotations

import logging

import pytest

from cxr_embed.cli import main as cli_main


@pytest.mark.parametrize("verb", cli_main.VERBS)
class TestEveryVerb:
    def test_has_help(self, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli_main.main([verb, "--help"]) == 0
        shown = capsys.readouterr()
        assert f"cxr-embed {verb}" in shown.out or f"python -m {verb}" in shown.out.replace(
            "run_inference", "run"
        )
        assert "--gcs_billing_project" in shown.out
        assert shown.err == ""

    def test_refuses_an_unknown_flag(self, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
        assert cli_main.main([verb, "--no_such_flag=1"]) == 2
        assert capsys.readouterr().err == "cxr-embed: unknown flag --no_such_flag\n"

    def test_keeps_what_pydicom_quotes_of_a_file_off_the_screen(
        self, verb: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        logging.getLogger("pydicom").setLevel(logging.NOTSET)
        assert cli_main.main([verb]) == 2  # the flags are fine, and something is missing
        assert logging.getLogger("pydicom").level == logging.ERROR
        capsys.readouterr()
