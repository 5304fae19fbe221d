"""Without a network: what is refused at the socket, what goes on working, and how a failure behind it is explained."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from harness.core import offline
from harness.core.errors import DataMissing, UserError

ROOT = Path(__file__).parents[2]
OUTSIDE = "192.0.2.1"
"""An address that belongs to nobody (RFC 5737)."""


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own: what refuses the network cannot be taken back."""
    kept = {name: value for name, value in os.environ.items() if name not in offline.VARIABLES}
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=kept | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )


REFUSED = f"""
import socket, urllib.request
from harness.core.offline import NetworkRefused, refuse_network
refuse_network()
def attempts():
    yield "name", lambda: socket.getaddrinfo("hub.example", 443)
    yield "old name", lambda: socket.gethostbyname("hub.example")
    yield "address", lambda: socket.create_connection(("{OUTSIDE}", 443), timeout=5)
    yield "sixth", lambda: socket.socket(socket.AF_INET6).connect(("2001:db8::1", 443))
    yield "mapped", lambda: socket.socket(socket.AF_INET6).connect(("::ffff:{OUTSIDE}", 443))
    yield "other code", lambda: socket.socket().connect_ex(("{OUTSIDE}", 443))
    yield "datagram", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b"x", ("{OUTSIDE}", 53))
    yield "message", lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendmsg([b"x"], [], 0, ("{OUTSIDE}", 53))
    yield "library", lambda: urllib.request.urlopen("http://{OUTSIDE}/model", timeout=5)
for name, attempt in attempts():
    try:
        attempt()
    except Exception as error:
        while error is not None and not isinstance(error, NetworkRefused):
            error = error.__cause__ or error.__context__
        print(name, bool(error), error.what if error else "")
"""


def test_nothing_outside_this_machine_is_reached_or_looked_up() -> None:
    lines = run(REFUSED).stdout.splitlines()
    assert [line.rpartition(" True ")[0] for line in lines] == [
        "name", "old name", "address", "sixth", "mapped", "other code", "datagram", "message", "library",
    ]  # fmt: skip
    assert lines[0].endswith("looking up hub.example was refused")
    assert lines[2].endswith(f"a connection to {OUTSIDE}, port 443 was refused")


LOCAL = """
import multiprocessing, os, socket, tempfile, threading
from harness.core.offline import refuse_network
refuse_network()
def echo(listener):
    peer, _ = listener.accept()
    peer.sendall(peer.recv(9)); peer.close()
for kind, address in ((socket.AF_INET, ("127.0.0.1", 0)), (socket.AF_INET6, ("::1", 0)), (socket.AF_UNIX, tempfile.mktemp())):
    try:
        listener = socket.socket(kind)
        listener.bind(address)
    except OSError:  # a machine without IPv6
        print("echo"); continue
    listener.listen()
    threading.Thread(target=echo, args=(listener,)).start()
    with socket.socket(kind) as client:
        client.connect(listener.getsockname())
        client.sendall(b"echo")
        print(client.recv(9).decode())
socket.getaddrinfo("localhost", 1), socket.getaddrinfo(socket.gethostname(), 1), socket.getaddrinfo(None, 1)
with multiprocessing.get_context("spawn").Manager() as manager:
    print(manager.list([1])[0])
print(os.environ["HF_HUB_OFFLINE"], os.environ["TRANSFORMERS_OFFLINE"])
"""


def test_connections_within_this_machine_go_on_working(tmp_path: Path) -> None:
    script = tmp_path / "local.py"
    body = "\n".join(f"    {line}" for line in LOCAL.strip().splitlines())
    script.write_text(f"if __name__ == '__main__':\n{body}\n")
    done = subprocess.run(
        [sys.executable, str(script)], cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
        check=False,
    )  # fmt: skip
    assert done.stdout.split() == ["echo", "echo", "echo", "1", "1", "1"], done.stderr


def test_the_hubs_client_is_offline_also_where_it_was_imported_before() -> None:
    code = (
        "import huggingface_hub, huggingface_hub.constants as c; from harness.core.offline import refuse_network\n"
        "before = c.HF_HUB_OFFLINE; refuse_network(); print(before, c.HF_HUB_OFFLINE, huggingface_hub.is_offline_mode())"
    )
    assert run(code).stdout.split() == ["False", "True", "True"]


def test_the_users_variable_is_the_same_switch(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, wanted in (("1", True), ("true", True), ("ON", True), ("0", False), ("", False)):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        assert offline.offline() is wanted, value
    monkeypatch.delenv("HF_HUB_OFFLINE")
    assert not offline.offline()


def test_a_worker_is_told_by_its_message_and_by_its_environment() -> None:
    code = (
        "import os, sys, harness.run.worker as w\n"
        "w.redirect = lambda log: (print(os.environ.get('HF_HUB_OFFLINE')), sys.exit())\n"
    )
    told = 'import io; w.serve(io.StringIO(\'{"log": "x", "offline": true}\\n\'), io.StringIO())'
    silent = 'import io; w.serve(io.StringIO(\'{"log": "x"}\\n\'), io.StringIO())'
    pause = "w.os._exit = lambda code: None\n"
    assert run(code + pause + told).stdout.strip() == "1"
    assert run(code + pause + silent).stdout.strip() == "None"
    started = "import harness.run.worker as w; w.serve = lambda *a: __import__('socket').getaddrinfo('hub.example', 1)\nw._main()"
    failed = subprocess.run(
        [sys.executable, "-c", started],
        cwd=ROOT,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "looking up hub.example was refused" in failed.stderr


def test_executors_tell_workers_wherever_they_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.plan.model import Plan
    from harness.run.local import LocalExecutor
    from harness.run.progress import ProgressReporter
    from harness.run.queue import Task
    from harness.store.artifacts import Store
    from harness.store.cells import Cell

    store = Store(tmp_path)
    executor = LocalExecutor(store, 1, "cpu", ProgressReporter(store, 1, quiet=True))
    executor.plan = Plan()
    task = Task(Cell("fit", "a", 1, {}, callable_path="a:b"), "")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    for value, wanted in (("1", True), ("0", False)):
        monkeypatch.setenv("HF_HUB_OFFLINE", value)
        message = executor.message(task)
        assert message["offline"] is wanted and "hf_secret" not in json.dumps(message)


class LocalEntryNotFoundError(FileNotFoundError):
    """As the hub's client calls it."""


def chained(outer: Exception, inner: Exception) -> Exception:
    try:
        try:
            raise inner
        except type(inner) as error:
            raise outer from error
    except type(outer) as error:
        return error


def test_a_failure_behind_which_the_network_was_refused_names_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from harness.run.worker import describe

    error = chained(DataMissing("cannot fetch a/b at c", "some words", "check the name"), LocalEntryNotFoundError("no"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert describe(error)["fix"] == "check the name"
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert describe(error) == {"what": "cannot fetch a/b at c", "why": offline.WHY, "fix": offline.FIX}
    refused = offline.NetworkRefused("looking up x was refused", offline.WHY, offline.FIX)
    assert describe(chained(RuntimeError("a library"), refused))["what"] == "looking up x was refused"
    other = UserError("disk", "full", "free some")
    assert describe(other)["fix"] == "free some"


def test_a_library_sees_a_refusal_as_a_failed_connection() -> None:
    error = offline.NetworkRefused("a", "b", "c")
    assert isinstance(error, OSError) and isinstance(error, UserError)
    assert str(error) == "error: a\n  why: b\n  fix: c" and error.what == "a"


def test_the_machines_own_names_are_not_those_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "api")
    assert offline._is_this_machine("api") and not offline._is_this_machine("api.openai.example")


@pytest.mark.slow
def test_an_agent_of_torchrun_and_its_ranks_on_gloo_meet_offline(tmp_path: Path) -> None:
    rank = tmp_path / "rank.py"
    rank.write_text(
        "from harness.core.offline import refuse_network\nrefuse_network()\n"
        "import os, torch, torch.distributed as d\n"
        "d.init_process_group('gloo')\nx = torch.ones(1)\nd.all_reduce(x)\n"
        "os.write(1, f'{int(x)}\\n'.encode())\nd.destroy_process_group()"
    )
    agent = (
        "from harness.core.offline import refuse_network\nrefuse_network()\n"
        "from torch.distributed.launcher.api import LaunchConfig, elastic_launch\nimport sys\n"
        "config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=2, run_id='x', rdzv_backend='c10d', "
        f"rdzv_endpoint='localhost:0', max_restarts=0)\nelastic_launch(config, sys.executable)('-u', {str(rank)!r})"
    )
    done = run(agent, PYTHONPATH=str(ROOT), OMP_NUM_THREADS="1")
    assert done.stdout.split() == ["2", "2"], done.stderr
