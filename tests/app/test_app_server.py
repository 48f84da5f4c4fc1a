"""Who may ask the server, and what it answers."""

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from app_runs import a_run
from commanding import headscope
from made_up import HOSTILE, a_map

pytest.importorskip("dash", reason="needs the extra [app]")

import dash
from werkzeug.wrappers import Request

from headscope.errors import HeadscopeError
from headscope_app import errors
from headscope_app.guard import check_address
from headscope_app.server import bound, make_app, serve

TOKEN = "a-token-that-nobody-guesses"


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    a_run(folder / "one")
    a_run(folder / "two", a_map(layers=3))
    return folder


@pytest.fixture(scope="module")
def app(runs: Path) -> dash.Dash:
    return make_app([runs])


def asked(app: dash.Dash, path: str = "/", host: str = "localhost:8050", **headers: str) -> Any:
    answer = app.server.test_client().get(path, headers={"Host": host, **headers})
    answer.get_data()  # read before the file behind it is closed
    answer.close()
    return answer


@pytest.mark.parametrize("host", ["localhost", "localhost:8050", "127.0.0.1:1", "[::1]:8050"])
def test_this_machine_is_answered(host: str, app: dash.Dash) -> None:
    assert asked(app, host=host).status_code == 200


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8050", "localhost.evil.example", "127.0.0.1.nip.io", "[", ""],
)
def test_a_page_whose_name_points_here_is_not(host: str, app: dash.Dash) -> None:
    assert asked(app, host=host).status_code == 403


def test_pages_of_elsewhere_may_not_ask(app: dash.Dash) -> None:
    client = app.server.test_client()
    path, host = "/_dash-update-component", {"Host": "localhost:8050"}
    for origin in ("http://evil.example", "http://localhost:1", "null", "http://["):
        found = client.post(path, json={}, headers=host | {"Origin": origin})
        assert found.status_code == 403, origin
    found = client.get("/_dash-layout", headers=host | {"Origin": "http://localhost:8050"})
    assert found.status_code == 200


_QUESTION = {
    "output": "chosen.children",
    "outputs": {"id": "chosen", "property": "children"},
    "inputs": [{"id": "of-chosen", "property": "data", "value": {}}],
    "changedPropIds": ["of-chosen.data"],
}


@pytest.mark.parametrize(
    "body",
    [
        "{}", "[]", "null", '"x"', "{", "", "[" * 200_000 + "]" * 200_000,
        *(
            json.dumps(_QUESTION | {name: wrong})
            for name, wrong in [
                ("output", 5), ("output", ["chosen.children"]), ("output", "nothing.children"),
                ("outputs", None), ("inputs", None), ("inputs", "x"), ("inputs", [5]),
                ("state", {}), ("changedPropIds", 5),
            ]
        ),
    ],
)  # fmt: skip
def test_what_no_page_asks_is_refused(
    body: str, app: dash.Dash, capfd: pytest.CaptureFixture[str]
) -> None:
    answer = app.server.test_client().post(
        "/_dash-update-component",
        data=body,
        content_type="application/json",
        headers={"Host": "localhost:8050"},
    )
    assert 400 <= answer.status_code < 500
    assert "Traceback" not in answer.get_data(as_text=True) + capfd.readouterr().err


@pytest.mark.parametrize(
    "path", ["headscope_app/guard.py", "dash/../../../etc/passwd", "nothing/x.js"]
)
def test_packages_give_their_scripts_alone(path: str, app: dash.Dash) -> None:
    answer = asked(app, f"/_dash-component-suites/{path}")
    assert 400 <= answer.status_code < 500


def test_a_request_of_any_size_is_not_read(app: dash.Dash) -> None:
    found = app.server.test_client().post(
        "/_dash-update-component",
        data=b"{}",
        content_type="application/json",
        headers={"Host": "localhost:8050"},
        environ_overrides={"CONTENT_LENGTH": str(2**30)},
    )
    assert found.status_code == 413


def test_the_policy_lets_a_page_load_nothing_from_elsewhere(app: dash.Dash) -> None:
    answer = asked(app)
    policy = answer.headers["Content-Security-Policy"]
    parts = dict(part.split(" ", 1) for part in policy.split("; "))
    assert parts["default-src"] == "'none'"
    assert parts["connect-src"] == "'self'"
    assert "unsafe" not in parts["script-src"]
    assert "http" not in policy
    assert answer.headers["X-Frame-Options"] == "DENY"
    text = answer.get_data(as_text=True)
    assert "https://" not in text
    assert "cdn" not in text


def test_other_machines_need_a_flag_and_a_token(runs: Path) -> None:
    for anywhere, token in ((False, None), (True, None), (False, TOKEN)):
        with pytest.raises(HeadscopeError, match="add --allow-remote and --token"):
            check_address("0.0.0.0", anywhere, token)
    check_address("0.0.0.0", True, TOKEN)
    with pytest.raises(HeadscopeError, match="at least 16"):
        check_address("0.0.0.0", True, "short")
    with pytest.raises(HeadscopeError, match="plain characters"):
        check_address("127.0.0.1", False, "sixteen\ncharacters")
    with pytest.raises(HeadscopeError, match="add --allow-remote"):
        serve([runs], host="0.0.0.0")


def test_a_token_need_not_stand_in_a_command_line(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSCOPE_TOKEN", "short")
    code, _, said = headscope("app", runs, "--port", 0)
    assert code == 2
    assert "at least 16 plain characters" in said


def test_with_a_token_nothing_is_answered_without_it(runs: Path) -> None:
    app = make_app([runs], host="0.0.0.0", token=TOKEN)
    for path in (
        "/",
        "/_dash-layout",
        "/_dash-dependencies",
        "/assets/app.css",
        "/?token=",
        "/?token=x",
    ):
        answer = asked(app, path, host="box.example")
        assert answer.status_code == 401, path
        assert TOKEN not in answer.get_data(as_text=True)
    client = app.server.test_client()
    first = client.get(f"/run?a=1&token={TOKEN}&b=2", headers={"Host": "box.example"})
    assert (first.status_code, first.headers["Location"]) == (302, "/run?a=1&b=2")
    cookie = first.headers["Set-Cookie"]
    assert "HttpOnly" in cookie
    assert "SameSite=Strict" in cookie
    assert client.get("/_dash-layout", headers={"Host": "box.example"}).status_code == 200


@pytest.mark.parametrize("path", ["//evil.example", "/\t/evil.example", "/\\evil.example", "/a/b"])
def test_taking_the_token_out_of_an_address_leads_nowhere_else(path: str, runs: Path) -> None:
    app = make_app([runs], host="0.0.0.0", token=TOKEN)
    sent = Request.from_values(query_string={"token": TOKEN}, headers={"Host": "box.example"})
    told: list[Any] = []
    parts = sent.environ | {"PATH_INFO": path}
    app.server(parts, lambda status, headers, _=None: told.append((status, dict(headers))))
    ((status, headers),) = told
    assert status.startswith("302")
    # As browsers read it: without tabs, and with a backslash for a slash.
    leads = headers["Location"].replace("\t", "").replace("\\", "/")
    assert urlsplit(leads).netloc == ""
    assert not leads.startswith("//")


def test_two_servers_of_one_machine_keep_their_cookies_apart(runs: Path) -> None:
    """Ports share cookies: what listens on another sees them, and may not learn the token."""
    host = {"Host": "box.example"}
    first, second = (
        make_app([runs], host="0.0.0.0", token=token).server.test_client()
        for token in (TOKEN, TOKEN + "-2")
    )
    cookies = [
        client.get(f"/?token={token}", headers=host).headers["Set-Cookie"]
        for client, token in ((first, TOKEN), (second, TOKEN + "-2"))
    ]
    names = {cookie.partition("=")[0] for cookie in cookies}
    assert len(names) == 2
    assert not any(TOKEN in cookie for cookie in cookies)
    sent = "; ".join(cookie.partition(";")[0] for cookie in cookies)
    for client in (first, second):
        fresh = client.application.test_client(use_cookies=False)
        assert fresh.get("/", headers=host | {"Cookie": sent}).status_code == 200
        wrong = f"{cookies[0].partition('=')[0]}={TOKEN}"
        assert fresh.get("/", headers=host | {"Cookie": wrong}).status_code == 401


def test_files_are_served_from_the_assets_alone(app: dash.Dash) -> None:
    for path in ("/assets/../server.py", "/assets/%2e%2e/server.py", "/assets//etc/passwd"):
        assert "def make_app" not in asked(app, path).get_data(as_text=True)
    assert asked(app, "/assets/app.css").status_code == 200


def test_a_theme_in_the_address_is_one_of_two(app: dash.Dash) -> None:
    assert 'data-theme="dark"' in asked(app, "/?theme=dark").get_data(as_text=True)
    hostile = asked(app, '/?theme="><script>alert(1)</script>').get_data(as_text=True)
    assert "alert(1)" not in hostile


def test_a_port_that_is_taken(app: dash.Dash) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        with pytest.raises(HeadscopeError, match="choose another with --port"):
            bound(app, "127.0.0.1", other.getsockname()[1])
    with pytest.raises(HeadscopeError, match="Nothing can listen on"):
        bound(app, "203.0.113.7", 0)


def test_what_a_user_can_mend_is_said_and_what_is_a_bug_is_not_shown(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert errors.told(HeadscopeError("Do that.")) == "Do that."
    said = errors.told(ValueError("/secret/path"))
    assert "/secret/path" not in said
    assert "/secret/path" in capsys.readouterr().err
    assert "out of memory" in errors.told(MemoryError())


def test_a_callback_that_fails_leaves_the_page_and_says_why(app: dash.Dash) -> None:
    client = app.server.test_client()
    body = {
        "output": "chosen.children",
        "outputs": {"id": "chosen", "property": "children"},
        "inputs": [{"id": "of-chosen", "property": "data", "value": {"search": f"?run={HOSTILE}"}}],
        "changedPropIds": ["of-chosen.data"],
    }
    answer = client.post("/_dash-update-component", json=body, headers={"Host": "localhost:8050"})
    assert answer.status_code == 200
    (message,) = answer.get_json()["sideUpdate"].values()
    assert "no such run" in message["data"]["text"]
    assert "Traceback" not in answer.get_data(as_text=True)


def test_the_server_does_without_torch(runs: Path) -> None:
    code = (
        "import sys\n"
        "from headscope_app.library import Library\n"
        "from headscope_app.server import PAGES, State, laid_out, make_app\n"
        "make_app([{runs!r}]); library = Library.of([{runs!r}])\n"
        "ids = [entry.id for entry in library.runs()]\n"
        "for path in ('/', '/run', '/head', '/probes', '/compare', '/tests'):\n"
        "    query = f'?run={{ids[0]}}&other={{ids[1]}}&head=L1H2'\n"
        "    laid_out(PAGES, library, path, State.parse(query))\n"
        "found = {{'torch', 'transformers'}} & {{*sys.modules}}\n"
        "sys.exit(f'{{found}} loaded' if found else 0)"
    ).format(runs=str(runs))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
