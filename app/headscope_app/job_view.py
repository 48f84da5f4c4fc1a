"""Jobs on the page: how far each is, and what can be done about it."""

import shlex
from collections.abc import Sequence

from dash import html
from dash.development.base_component import Component

from headscope_app.elements import attributes, link
from headscope_app.job import Job, Progress

_STATES = {
    "running": "running",
    "done": "done",
    "failed": "failed",
    "cancelled": "cancelled",
    "stopped": "stopped",
}
_WHAT = {"scan": "Scan", "validate": "Validation", "plan": "Losses for plans"}


def job_list(jobs: Sequence[tuple[Job, Progress, str]]) -> Component:
    """Every job that is remembered, the latest first.

    Args:
        jobs: each with its progress, and where its run is shown, "" if it is not there yet.
    """
    if not jobs:
        return html.P("Nothing was started from here yet.", className="note")
    return html.Ol([_job(*each) for each in jobs], className="jobs")


def _job(job: Job, progress: Progress, href: str) -> Component:
    name = link(job.name, href) if href else html.B(job.name)
    return html.Li(
        [
            html.Div(
                [
                    html.H3([f"{_WHAT[job.what]}: ", name]),
                    html.Span(_STATES[job.state], className=f"state {_look(job)}", role="status"),
                    html.Span(
                        time_of(job), id={"type": "job-time", "job": job.id}, className="few"
                    ),
                    html.Div(_buttons(job, progress), className="tools"),
                ],
                className="job-head",
            ),
            html.Div(progress_of(job, progress), id={"type": "job-progress", "job": job.id}),
            html.P(job.told, className="note", role="alert" if job.state == "failed" else None)
            if job.told
            else None,
            html.Details(
                [
                    html.Summary("Command"),
                    html.Pre("headscope " + shlex.join(job.arguments)),
                ]
            ),
        ],
        className=f"job {job.state}",
        **attributes(data_job=job.id),
    )


def progress_of(job: Job, progress: Progress) -> list[Component]:
    """How far a job is; nothing of one that is done."""
    if job.state == "done":
        return []
    done = sum(stage.done for stage in progress.stages)
    total = sum(stage.total for stage in progress.stages)
    if not total:
        told = "Opening the model…" if job.state == "running" else "Nothing was measured yet."
        return [html.P(told, className="note")]
    now = next((s for s in progress.stages if s.done < s.total), progress.stages[-1])
    return [
        html.Progress(
            value=str(done), max=str(total), **attributes(aria_label=f"{job.name}: how far it is")
        ),
        html.P(
            f"{done} of {total} prompts; {now.name}: {now.done} of {now.total}", className="note"
        ),
    ]


def _buttons(job: Job, progress: Progress) -> list[Component]:
    if job.state == "running":
        return [_button("cancel", "Cancel", job)]
    told = "Go on" if progress.share > 0 else "Try again"
    return [_button("resume", told, job)] if job.resumable else []


def _button(what: str, told: str, job: Job) -> Component:
    return html.Button(
        told,
        id={"type": f"job-{what}", "job": job.id},
        type="button",
        **attributes(aria_label=f"{told}: {job.name}"),
    )


def _look(job: Job) -> str:
    """As states of runs look."""
    return {"running": "running", "failed": "damaged", "done": "complete"}.get(job.state, "")


def time_of(job: Job) -> str:
    """How long a job has run, or ran."""
    whole = int(job.seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole < 3600 else f"{whole / 3600:.1f} h"
