"""Many threads, and children that are forked while they call."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests import REPOSITORY
from tests.support.servers.sqs import no_account
from tests.unit.sqs.certificates import Authority
from tests.unit.sqs.scripted_server import End, ScriptedServer, answered

#: What a process with a worker's threads does. A call of another thread is under way, and one has ended on a connection
#: that is kept, when the child is forked. It prints the child's exit status and what the calls came to.
_FORKS = """
import gc, os, sys, threading
from bridge.sqs.clients import new_session, sqs_client
from bridge.sqs.fast_client import SqsCalls

session = new_session("us-east-1")
calls = SqsCalls(session, sqs_client("settle", "us-east-1", session=session), read_seconds=60)
idle, go_on, answers = threading.Event(), threading.Event(), []

def call(name):
    answers.append(calls.receive_message(QueueUrl=name)["Messages"][0]["Body"])

def of_the_idle_thread():
    call("idle")
    idle.set()
    go_on.wait()
    call("idle")

def of_the_busy_thread():
    call("busy")
    call("busy")

call("main")
threads = [threading.Thread(target=target) for target in (of_the_idle_thread, of_the_busy_thread)]
for thread in threads:
    thread.start()
idle.wait()
sys.stdin.readline()  # the busy thread's first call has reached the server
child = os.fork()
if child == 0:
    answers.clear()
    {child}
status = os.waitpid(child, 0)[1]
print("forked", status, flush=True)
go_on.set()
for thread in threads:
    thread.join()
call("main")
print(*sorted(answers), flush=True)
"""

#: What a child may do; each ends with 0 if all went well.
CHILDREN = {
    "leaves at once": "os._exit(0)",
    "ends as Python programs do": "sys.exit(0)",
    "drops all it has": "del calls; gc.collect(); os._exit(0)",
    "calls": "call('child'); os._exit(answers != ['child'])",
    "calls and ends": "call('child'); sys.exit(answers != ['child'])",
    "calls in a thread": "t = threading.Thread(target=call, args=('child',)); t.start(); t.join(); exit(not answers)",
}


def echo(request):
    """Answer with a message whose body is the queue's name."""
    return [answered(json.dumps({"Messages": [{"Body": request.parameters["QueueUrl"]}]}).encode())]


def _environment(url: str, **more: str) -> dict[str, str]:
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "PYTHONPATH": str(REPOSITORY)}
    return {"PATH": os.environ["PATH"], **keys, **no_account(), "AWS_ENDPOINT_URL_SQS": url, **more}


def test_four_threads_call_at_the_same_time(clients):
    """Each thread has a connection of its own, waits for nobody else's answer, and gets its own."""
    together = threading.Barrier(4, timeout=60)

    def script(request):
        together.wait()  # an answer only when all four have asked
        return echo(request)

    def calls_of(name):
        mine = []
        for number in range(10):
            [message] = calls.receive_message(QueueUrl=f"{name}-{number}")["Messages"]
            mine.append(message["Body"])
        return mine == [f"{name}-{number}" for number in range(10)]

    with ScriptedServer(script) as server:
        calls = clients(server.url, read_seconds=60).curl
        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(calls_of, "abcd"))
        assert server.connections == 4
    assert len(server.requests) == 40


@pytest.mark.slow
@pytest.mark.parametrize("child", CHILDREN.values(), ids=CHILDREN)
def test_a_forked_child_leaves_the_connections_of_its_parent_alone(tmp_path, child):
    """Whatever a child does, the parent's TLS connections go on, the call under way among them, and the child lives.

    libcurl would tell the server that the connection ends, or wait for a thread that the child has not; the name of
    this machine is used because only the look-up of a name starts such threads.
    """
    host = socket.gethostname()
    try:
        listening = socket.gethostbyname(host).startswith("127.")
    except OSError:
        listening = False
    host = host if listening else "localhost"
    authority = Authority(tmp_path)
    asked, forked = threading.Event(), threading.Event()

    def script(request):
        if request.parameters["QueueUrl"] == "busy" and not asked.is_set():
            asked.set()
            forked.wait(60)
        return echo(request)

    with ScriptedServer(script, tls=authority.context(host)) as server:
        environment = _environment(f"https://{host}:{server.port}", AWS_CA_BUNDLE=str(authority.bundle))
        with subprocess.Popen(
            [sys.executable, "-c", _FORKS.replace("{child}", child.replace("; ", "\n    "))],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as parent:
            assert asked.wait(60), parent.communicate(timeout=10)
            parent.stdin.write("go on\n")
            parent.stdin.flush()
            forked_line = parent.stdout.readline()
            forked.set()
            out, err = parent.communicate(timeout=60)
    assert (forked_line, out) == ("forked 0\n", "busy busy idle idle main main\n"), err
    by_name = {}
    for request in server.requests:
        by_name.setdefault(request.parameters["QueueUrl"], set()).add(request.connection)
    mine = by_name.pop("child", set())
    assert all(len(connections) == 1 for connections in by_name.values())
    assert len(set.union(*by_name.values())) == 3
    assert not mine & set.union(*by_name.values())


@pytest.mark.slow
def test_a_process_ends_while_a_daemon_thread_calls(tmp_path):
    """A worker that has drained is not held up by a call that hangs, nor does it crash at its end."""
    program = """
import sys, threading
from bridge.sqs.clients import new_session, sqs_client
from bridge.sqs.fast_client import SqsCalls
session = new_session("us-east-1")
calls = SqsCalls(session, sqs_client("settle", "us-east-1", session=session), read_seconds=600)
calls.receive_message(QueueUrl="answered")
threading.Thread(target=calls.receive_message, kwargs={"QueueUrl": "hangs"}, daemon=True).start()
sys.stdin.readline()
"""
    hanging = threading.Event()

    def script(request):
        if request.parameters["QueueUrl"] == "hangs":
            hanging.set()
            return [End.HANG]
        return echo(request)

    with (
        ScriptedServer(script) as server,
        subprocess.Popen(
            [sys.executable, "-c", program],
            env=_environment(server.url),
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        assert hanging.wait(60)
        _, err = process.communicate("end\n", timeout=60)
    assert (process.returncode, err) == (0, "")
