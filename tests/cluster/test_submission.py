"""Following a job: its log is printed once, whatever happens to the connection."""

from types import SimpleNamespace

import pytest

from pcl.cluster import submission
from pcl.cluster.submission import JobServer, JobServerError


class Client:
    """A cluster's answers: logs in pieces, a connection that breaks after some of them, and a job's status."""

    def __init__(self, *logs):
        self.logs, self.statuses = list(logs), ["RUNNING"] * (len(logs) - 1) + ["SUCCEEDED"]

    def get_address(self):
        return "http://127.0.0.1:8265"

    async def tail_job_logs(self, name):
        pieces = self.logs.pop(0)
        for piece in pieces:
            if isinstance(piece, Exception):
                raise piece
            yield piece

    def get_job_info(self, name):
        return SimpleNamespace(status=self.statuses[-1 - len(self.logs)], driver_exit_code=0, message="")


@pytest.fixture
def server(monkeypatch):
    """Return a function that connects to a client."""
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://elsewhere")
    monkeypatch.setattr(submission.time, "sleep", lambda seconds: None)

    def connect(client):
        monkeypatch.setattr(submission, "job_client", lambda address: client)
        return JobServer("http://127.0.0.1:8265")

    return connect


def test_a_log_is_printed_once_however_often_the_connection_breaks(server, capsys):
    broken = RuntimeError("WebSocket connection closed unexpectedly with close code 1006")
    client = Client(["one\n", "tw", broken], [broken], ["one\nt", "wo\nth", broken], ["one\ntwo\nthree\n"])
    assert server(client).follow("train-run") == 0
    assert capsys.readouterr().out == "one\ntwo\nthree\n"


def test_a_cluster_that_stays_away_is_given_up(server, monkeypatch):
    monkeypatch.setattr(submission, "LOST_S", -1)
    with pytest.raises(JobServerError, match=r"no longer answers \(broken\): train-run may go on"):
        server(Client([OSError("broken")])).follow("train-run")
