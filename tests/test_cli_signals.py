"""The command that traces signals between heads."""

import json
import sys
from pathlib import Path

import pytest
from tiny import tiny_model, tiny_tokenizer

from headscope import cli


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    where = tmp_path_factory.mktemp("models") / "gpt2"
    tiny_model("gpt2").save_pretrained(where)
    tiny_tokenizer().save_pretrained(where)
    return str(where)


@pytest.fixture
def signals(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    """Runs the command; (exit code, stdout, stderr)."""

    def run(*args: str) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["headscope", "signals", *args, "--quiet"])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return ended.value.code, *capsys.readouterr()

    return run


def test_edges_are_printed(folder: str, signals) -> None:
    asked = (folder, "--task", "induction", "--lengths", "41", "--samples", "2")
    code, out, err = signals(*asked, "--top", "3", "--json")
    assert (code, err) == (0, "")
    said = json.loads(out)
    assert said["prompts"] == 2
    assert len(said["edges"]) == 3
    assert {edge["side"] for edge in said["edges"]} <= {"query", "key"}
    code, out, _ = signals(*asked)
    assert code == 0
    assert "signals between heads, 2 prompts" in out
    assert f"Heads that fire: {len(said['heads'])}, " in out


def test_even_attention_has_no_signals(tmp_path: Path, signals) -> None:
    hf = tiny_model("gpt2")
    for block in hf.transformer.h:
        block.attn.c_attn.weight[:, :48] = block.attn.c_attn.bias[:48] = 0
    hf.save_pretrained(tmp_path / "even")
    tiny_tokenizer().save_pretrained(tmp_path / "even")
    asked = ("--task", "induction", "--lengths", "41", "--samples", "1")
    code, out, _ = signals(str(tmp_path / "even"), *asked)
    assert code == 0
    assert "No head of even fires" in out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--task", "no_such"), "no_such"),
        (("--share", "2"), "headscope signals needs a share above 0"),
        (("--samples", "0"), "--samples takes a whole number from 1 up"),
        (("--task", "ioi"), "names that are one token"),
    ],
)
def test_mistakes_are_one_sentence(args: tuple[str, ...], said: str, folder: str, signals) -> None:
    code, out, err = signals(folder, *args)
    assert (code, out) == (2, "")
    assert said in err
    assert len(err.strip().splitlines()) == 1
