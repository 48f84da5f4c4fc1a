"""Start a scan or a validation, watch it, and cancel it; processes of their own do the work."""

from contextlib import suppress
from typing import Any

import dash
from dash import ALL, Input, Output, ctx, dcc, html
from dash import State as Aside
from dash.development.base_component import Component

from headscope.errors import HeadscopeError
from headscope.headmap import HeadMap
from headscope_app.elements import card, heading
from headscope_app.engine import Engine, engine_of
from headscope_app.job import Job, Progress
from headscope_app.job_forms import (
    described,
    first_role,
    role_options,
    scan_form,
    validation_form,
)
from headscope_app.job_view import job_list, progress_of, time_of
from headscope_app.library import Library
from headscope_app.listing import identity
from headscope_app.state import State
from headscope_app.tasks import Scan, Validate, names, numbers

PATH = "/new"
TITLE = "New"
KEYS: tuple[str, ...] = ()

_EVERY = 1000  # ms between two looks at the jobs


def layout(library: Library, state: State) -> Component:
    runs = library.runs()
    complete = [run.id for run in runs if run.state == "complete"]
    chosen = state.run if state.run in complete else next(iter(complete), "")
    head_map = _readable(library, chosen)
    folders = [folder.name or "/" for folder in library.roots.folders]
    return html.Div(
        [
            heading("New scan or validation"),
            card("Jobs", html.Div(id="jobs")),
            html.Div(
                [scan_form(_models(library), folders), validation_form(runs, chosen, head_map)],
                className="columns",
            ),
            dcc.Interval(id="jobs-tick", interval=_EVERY),
            dcc.Store(id="jobs-shown"),
            dcc.Store(id="new-page", data=PATH),
        ],
        className="page",
    )


def register(app: dash.Dash, library: Library) -> None:
    engine = engine_of(app, library)
    _register_lists(app, library, engine)
    _register_starts(app, library, engine)

    @app.callback(
        Output("jobs", "children"),
        Output("jobs-shown", "data"),
        Output({"type": "job-time", "job": ALL}, "children"),
        Output({"type": "job-progress", "job": ALL}, "children"),
        Input("jobs-tick", "n_intervals"),
        Input({"type": "job-cancel", "job": ALL}, "n_clicks"),
        Input({"type": "job-resume", "job": ALL}, "n_clicks"),
        Aside("jobs-shown", "data"),
    )
    def watched(_: Any, cancels: list[Any], resumes: list[Any], shown: Any) -> tuple[Any, ...]:
        asked = ctx.triggered_id
        if isinstance(asked, dict) and any([*cancels, *resumes]):
            act = engine.jobs.cancel if asked["type"] == "job-cancel" else engine.jobs.resume
            act(str(asked["job"]))
        places = [[each["id"]["job"] for each in every] for every in ctx.outputs_list[2:]]
        return _watched(engine, library, shown, *places)


def _register_lists(app: dash.Dash, library: Library, engine: Engine) -> None:
    """What is listed once the page is there, as it comes from another process."""

    @app.callback(Output("scan-probes", "options"), Input("new-page", "data"))
    def probes(_: str) -> list[dict[str, Any]]:
        return described(engine.planning.catalogue(), "probes")

    @app.callback(
        Output("validate-tasks", "options"),
        Output("validate-spared", "options"),
        Input("validate-run", "id"),
    )
    def evals(_: str) -> tuple[list[dict[str, Any]], list[str]]:
        catalogue = engine.planning.catalogue()
        return described(catalogue, "evals"), list(catalogue["evals"])

    @app.callback(
        Output("validate-role", "options"),
        Output("validate-role", "value"),
        Input("validate-run", "value"),
        prevent_initial_call=True,
    )
    def roles(run: str) -> tuple[list[dict[str, Any]], str | None]:
        head_map = library.head_map(run)
        return role_options(head_map), first_role(head_map)


def _register_starts(app: dash.Dash, library: Library, engine: Engine) -> None:
    @app.callback(
        Output("jobs", "children", allow_duplicate=True),
        Output("jobs-shown", "data", allow_duplicate=True),
        Input("start-scan", "n_clicks"),
        *(
            Aside(f"scan-{name}", "value")
            for name in ("name", "model", "probes", "samples", "lengths", "seed", "folder")
        ),
        prevent_initial_call=True,
    )
    def scan(
        _: int, name: str, model: str, probes: Any, samples: Any, lengths: str, seed: Any, at: int
    ) -> tuple[Any, Any]:
        folders = library.roots.folders
        if not isinstance(at, int) or not 0 <= at < len(folders):
            raise HeadscopeError("Choose one of the folders that the app was started with.")
        task = Scan(
            model=(model or "").strip(),
            probes=tuple(probes or ()),
            samples=samples,
            lengths=numbers(lengths),
            seed=seed,
        )
        engine.jobs.scan(task, (name or "").strip(), folders[at], _models(library))
        return _listed(engine, library, None)

    @app.callback(
        Output("jobs", "children", allow_duplicate=True),
        Output("jobs-shown", "data", allow_duplicate=True),
        Input("start-validation", "n_clicks"),
        *(
            Aside(f"validate-{name}", "value")
            for name in (
                "run", "role", "k", "heads", "part", "samples", "controls", "lengths", "seed",
                "tasks", "spared",
            )
        ),
        prevent_initial_call=True,
    )  # fmt: skip
    def validate(
        _: int, run: str, role: str, k: Any, heads: str, part: Any, samples: Any, controls: Any,
        lengths: str, seed: Any, tasks: Any, spared: Any,
    ) -> tuple[Any, Any]:  # fmt: skip
        entry = library.run(run)
        task = Validate(
            role=role or "",
            k=k,
            heads=names(heads),
            part=part,
            samples=samples,
            controls=controls,
            lengths=numbers(lengths),
            seed=seed,
            tasks=tuple(tasks or ()),
            spared=tuple(spared or ()),
        )
        engine.jobs.on_run(task, entry.name, entry.path)
        return _listed(engine, library, None)


def _readable(library: Library, run: str) -> HeadMap | None:
    """A run's map; None where its files are damaged, which must not keep others from being made."""
    with suppress(HeadscopeError):
        return library.head_map(run)
    return None


def _watched(
    engine: Engine, library: Library, shown: Any, times: list[str], parts: list[str]
) -> tuple[Any, ...]:
    """What has changed of the jobs. Only how far they are is written anew where nothing else has:
    a list made anew would take the focus from its buttons every second.

    Args:
        times, parts: ids of the jobs whose time and progress stand on the page.
    """
    jobs, now = _looked(engine)
    still = [dash.no_update] * len(times), [dash.no_update] * len(parts)
    if now == shown:
        return dash.no_update, dash.no_update, *still
    if shown is None or [each[:2] for each in now] != [each[:2] for each in shown]:
        return *_listed(engine, library, shown), *still
    known = {job.id: (job, progress) for job, progress in jobs}
    written = [time_of(known[id][0]) if id in known else dash.no_update for id in times]
    drawn = [progress_of(*known[id]) if id in known else dash.no_update for id in parts]
    return dash.no_update, now, written, drawn


def _looked(engine: Engine) -> tuple[list[tuple[Job, Progress]], list[Any]]:
    """The jobs as they stand, and the same in short."""
    jobs = [(job, engine.jobs.progress(job)) for job in engine.jobs.all()]
    return jobs, [
        [job.id, job.state, int(job.seconds), [[s.name, s.done] for s in progress.stages]]
        for job, progress in jobs
    ]


def _listed(engine: Engine, library: Library, shown: Any) -> tuple[Any, Any]:
    """The jobs, and what tells whether they are shown already."""
    jobs, now = _looked(engine)
    if shown is not None:
        library.refresh()
    known = {run.id for run in library.runs() if run.state == "complete"}
    listed = []
    for job, progress in jobs:
        run = identity(job.folder)
        listed.append((job, progress, State(run=run).link("/run") if run in known else ""))
    return job_list(listed), now


def _models(library: Library) -> list[str]:
    """Models of the runs that are there, and the built-in one."""
    specs = [run.info.model.spec for run in library.runs() if run.info and run.info.kind == "scan"]
    return list(dict.fromkeys(["smollm2", *specs]))
