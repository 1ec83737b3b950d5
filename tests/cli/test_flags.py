"""What all verbs do with their command lines."""

from __future__ import annotations

import importlib
import logging

import pytest

from cxr_embed.cli import main as cli_main

# Flags whose names do not show that they take a path.
PATHS = ("inputs", "query", "html", "head", "predictions", "compare_to", "output")


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

    def test_refuses_an_address_with_a_password_and_does_not_repeat_it(
        self, verb: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make_flags = importlib.import_module(cli_main.VERBS[verb][0]).make_flags
        paths = [
            name for name in make_flags()
            if name.endswith(("_path", "_dir", "_csv", "_list")) or name in PATHS
        ]  # fmt: skip
        assert paths
        for name in paths:
            for address in ("s3://key:Geheim@bucket/x", "ftp://user:Geheim@host/x"):
                assert cli_main.main([verb, f"--{name}={address}"]) == 2
                message = capsys.readouterr().err
                assert message.startswith(f"cxr-embed: --{name}: this ")
                assert "Geheim" not in message
                assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("flag", "what_to_do"),
    [
        ("--limit=x", "--limit=x: pass a whole number"),
        ("--watch=x", "--watch=x: pass a number"),
        ("--overwrite=x", "--overwrite=x: pass true or false"),
        ("--engine=x", "--engine=x: pass one of tensorflow|openvino|onnxruntime"),
        ("--flagfile=absent.flags", "--flagfile absent.flags: No such file or directory"),
    ],
)
def test_a_wrong_value_is_named_in_plain_words(
    flag: str, what_to_do: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli_main.main(["run", flag]) == 2
    assert capsys.readouterr().err == f"cxr-embed: {what_to_do}\n"


def test_help_shows_how_to_turn_a_switch_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli_main.main(["train", "--help"]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "(default: on; off with --nocalibrate)" in shown
