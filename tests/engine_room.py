"""A tiny model in a folder, as a run knows one."""

from pathlib import Path

from tiny import tiny_model, tiny_tokenizer


def tiny_folder(folder: Path, name: str = "llama") -> Path:
    """Save a tiny random model with its tokenizer, to be opened by another process."""
    tiny_model(name).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def words(n: int) -> str:
    """A text of n words, each a token or two."""
    return " ".join(f"w{3 + (7 * i) % 89}" for i in range(n))
