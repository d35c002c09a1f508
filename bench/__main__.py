"""`./run bench NAME`: one benchmark beside its peers; `./run bench` lists them; `./run bench setup` installs the peers."""

import argparse
import sys

from bench import (
    access,
    annotations,
    archive,
    cstore,
    identity,
    masks,
    models,
    qido,
    scanner,
    setup,
    stow,
    upload,
    wado,
)
from bench.servers import PeerMissing

BENCHMARKS = {
    "archive": archive,
    "upload": upload,
    "stow": stow,
    "cstore": cstore,
    "qido": qido,
    "wado": wado,
    "annotations": annotations,
    "masks": masks,
    "models": models,
    "access": access,
    "scanner": scanner,
    "identity": identity,
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="./run bench", description=__doc__)
    parser.add_argument("name", nargs="?", choices=["setup", "all", *BENCHMARKS])
    parser.add_argument("--runs", type=int, default=3, help="measured runs of each server, after one that warms up")
    parser.add_argument("--alone", action="store_true", help="measure only our server, for instance without the peers")
    parser.add_argument("--short", action="store_true", help="archive: a small run, which only shows that it works")
    parser.add_argument("--only", default=",".join(archive.GROUPS), help="archive: some of %(default)s")
    chosen = parser.parse_args()
    if chosen.name is None:
        for name, module in BENCHMARKS.items():
            print(f"{name:12} {(module.__doc__ or '').splitlines()[0]}")
        print(f"{'setup':12} {(setup.__doc__ or '').splitlines()[0]}")
        return
    if chosen.name == "setup":
        setup.install()
        return
    for name in BENCHMARKS if chosen.name == "all" else [chosen.name]:
        try:
            if name == "archive":
                archive.run(chosen.runs, chosen.alone, short=chosen.short, only=tuple(chosen.only.split(",")))
            else:
                BENCHMARKS[name].run(chosen.runs, chosen.alone)
        except PeerMissing as peer:
            sys.exit(f"{peer} is not installed: ./run bench setup, or --alone to measure without peers")
        except AssertionError as wrong:
            sys.exit(f"{name}: a server answered wrongly, nothing was kept: {wrong}")


main()
