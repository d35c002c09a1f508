"""QIDO-RS: five kinds of query over 1,200 studies with 2,400 instances, over 1 and 4 connections; beside Orthanc."""

from collections.abc import Callable
from contextlib import ExitStack

from bench import corpus
from bench.measure import Comparison, Request, Sample, expect_json, send_all
from bench.servers import Server
from bench.stow import MULTIPART_JSON, archives, store_path, stored

STUDIES = 1200
STUDIES_PER_REQUEST = 40
REQUESTS = 100
SALT = 7


def run(runs: int, alone: bool) -> None:
    with ExitStack() as stack:
        servers = archives(stack, alone)
        for server in servers:
            _fill(server)
        comparison = Comparison(
            "qido",
            servers,
            f"{STUDIES} studies of one series with two instances; every answer's number of results is checked",
        )
        kinds: dict[str, Callable[[int], tuple[str, int]]] = {
            "first 50 studies": lambda _: ("/studies?limit=50", 50),
            "studies of a patient": lambda n: (f"/studies?PatientID=PATIENT-{n % STUDIES:08d}", 1),
            "studies by name prefix": lambda n: (f"/studies?PatientName=PATIENT-{n % 12:06d}*", 100),
            "series of a study": lambda n: (f"/studies/{corpus.uid(1, SALT, n % STUDIES)}/series", 1),
            "instances of a series": lambda n: (
                f"/studies/{corpus.uid(1, SALT, n % STUDIES)}/series/{corpus.uid(2, SALT, n % STUDIES * 100)}/instances",
                2,
            ),
        }
        comparison.alternate(
            runs, [(f"{kind}, {c} connections", _query(make, c)) for kind, make in kinds.items() for c in (1, 4)]
        )
        comparison.finish()


def _query(make: Callable[[int], tuple[str, int]], connections: int) -> Callable[[Server, int], Sample]:
    def measure(server: Server, run: int) -> Sample:
        requests: list[Request] = []
        for n in range(REQUESTS):
            path, count = make(run * 331 + n * 7)
            requests.append(
                Request("GET", path, expect_json(200, count=count), headers={"Accept": "application/dicom+json"})
            )
        return send_all(server, requests, connections=connections)

    return measure


def _fill(server: Server) -> None:
    requests: list[Request] = []
    for first in range(0, STUDIES, STUDIES_PER_REQUEST):
        instances = [
            one
            for number in range(first, first + STUDIES_PER_REQUEST)
            for one in corpus.study(SALT, instances=2, size=16, number=number)
        ]
        body = corpus.multipart(instances)
        requests.append(Request("POST", store_path(server), stored(len(instances)), body, MULTIPART_JSON))
    send_all(server, requests)
