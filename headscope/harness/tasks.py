"""Tasks of the harness, from its own collection or from a file, on an opened model."""

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lm_eval.evaluator import simple_evaluate
from lm_eval.tasks import TaskManager

from headscope.errors import HeadscopeError
from headscope.harness.lm import HeadscopeLM
from headscope.model import HeadModel


def evaluate(
    model: HeadModel,
    tasks: Sequence[str | Path],
    *,
    limit: int | None = None,
    fewshot: int | None = None,
    chat: bool = False,
) -> dict[str, Any]:
    """Run tasks of the harness on a model as it is now, open interventions included.

    The harness seeds the global generators of Python, NumPy and torch.

    Args:
        tasks: YAML files, or names of tasks that come with the harness. Relative paths in a file,
            such as its data_files, count from the file's own folder.
        limit: only so many documents of each task.
        fewshot: solved examples before each question; the task's own number if left out.
        chat: put each question into the model's chat template.

    Returns:
        The harness's own results: "results" by task and metric, "samples" by document, "config"
        with the model and what is in force on it, and more.

    Raises:
        HeadscopeError: there is no such task or data file, or the model cannot do what it asks.
    """
    lm = HeadscopeLM(model)
    if limit is not None and limit < 1:
        raise HeadscopeError(f"Ask for at least one document of each task, not {limit}.")
    tasks = [tasks] if isinstance(tasks, str | Path) else list(tasks)
    files = [task for task in tasks if Path(task).suffix in (".yaml", ".yml")]
    # Those that come with the harness are thousands of files to read.
    manager = TaskManager(include_defaults=len(files) < len(tasks))
    found: list[Any] = []
    for task in tasks:
        if task not in files and task not in manager.all_tasks:
            raise HeadscopeError(
                f"The harness has no task {str(task)!r}; name one of its own, or a YAML file."
            )
        found += _read(manager, Path(task)) if task in files else [task]
    results = simple_evaluate(
        model=lm,
        tasks=found,
        task_manager=manager,
        limit=limit,
        num_fewshot=fewshot,
        apply_chat_template=chat,
    )
    return dict(results or {})


def _read(manager: TaskManager, path: Path) -> list[Any]:
    """The task of a file, or its group."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise HeadscopeError(f"There is no task file {path}.")
    try:
        # The harness looks for what a file includes in its folder, but for data where one stands.
        with contextlib.chdir(path.parent):
            found = manager.load([str(path)])
    except FileNotFoundError as error:
        raise HeadscopeError(f"{path} names a file that is not there: {error}") from error
    return list(found.get("groups", {}).values())[:1] or list(found["tasks"].values())
