"""The paper's claims about the action prior at the size of the tiny preset: one resumable experiment, and its table.

`run` records the data, trains the VLM's eyes once and a prior for every seed, trains stage 2 of every variant, plays
each policy through its exported engines, the runtime and the firmware in lockstep, and keeps one result.json per
variant and seed. What is there is not done again. `prepare` ends before stage 2. `report` writes the tables between
`<!-- edge-bench prior SCALE -->` and `<!-- end prior -->`, and the plots.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from bench.document import Recording, notify, read_document, write_document
from edge.cli.parser import count
from edge.errors import InputError
from lab.prior import data
from lab.prior.jobs import Job, begin, plan, results
from lab.prior.report import lines, write_markdown
from lab.prior.scale import QUICK, SCALES, SMALL, Scale
from lab.prior.training import Place
from lab.prior.variants import BY_NAME, VARIANTS
from lab.prior.workers import run_all

DOCUMENT = "results.json"


def configure(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", nargs="?", choices=("run", "prepare", "report"), default="run", help="(default %(default)s)")
    add("--out", type=Path, default=Path("runs/prior"), metavar="DIR", help="all of the experiment (%(default)s)")
    add("--quick", action="store_true", help="a smoke run; its figures are not worth quoting")
    run = parser.add_argument_group("run")
    add = run.add_argument
    add(
        "--scale",
        choices=list(SCALES),
        default=SMALL.name,
        help="how large it is, see docs/notebook/results.md (%(default)s)",
    )
    add("--variants", nargs="+", choices=list(BY_NAME), metavar="NAME", help=f"of {', '.join(BY_NAME)} (default: all)")
    add("--seeds", type=count, default=3, help="(default %(default)s)")
    add("--jobs", type=count, default=1, help="processes, one thread each (default %(default)s)")
    add("--device", choices=("cpu", "cuda"), default="cpu", help="that trains; engines run on the CPU (%(default)s)")
    add("--episodes", type=int, default=None, help="played by each policy; 0 plays none (default 50)")
    add("--engines", choices=("exported", "torch"), default="exported", help="that play the policies (%(default)s)")
    add("--generated", type=Path, nargs="+", default=[], metavar="DIR", help="more stage-1 data (docs/howto/data.md)")
    add("--budget-s", type=float, metavar="S", help="stop after so long; the same command goes on")
    add("--results", type=Path, metavar="FILE", help="the results here as well, after every run")
    report = parser.add_argument_group("report")
    report.add_argument("--from", dest="source", type=Path, metavar="FILE", help="(default: results.json in --out)")
    report.add_argument("--markdown", type=Path, metavar="FILE.md", help="write the tables between its marks")
    report.add_argument("--plots", type=Path, metavar="DIR", help="write the plots here (needs matplotlib)")


def run(args: argparse.Namespace) -> int:
    if args.action == "report":
        return _report(args)
    scale = QUICK if args.quick else SCALES[args.scale]
    if args.episodes is not None:
        scale = replace(scale, episodes=args.episodes)
    if not begin(args.out, scale):
        raise InputError(f"{args.out} holds an experiment of another size; give another --out, or the --scale it has")
    place = Place(args.out, scale, args.device, args.engines)
    data.take_over(args.generated, place.data)
    variants = [BY_NAME[name] for name in args.variants] if args.variants else VARIANTS
    recording = Recording("prior", {"device": args.device, "jobs": args.jobs, "engines": args.engines}, args.quick)

    def finished(job: Job) -> None:
        notify(f"{job.name}: done")
        if job.name.startswith("run "):
            _write(args, recording, scale)

    jobs = plan(place, variants, args.seeds)
    if args.action == "prepare":
        jobs = [job for job in jobs if not job.name.startswith("run ")]
    failed = run_all(jobs, args.jobs, args.budget_s, finished)
    _write(args, recording, scale)
    return 1 if failed else 0


def _write(args: argparse.Namespace, recording: Recording, scale: Scale) -> None:
    folder = args.out / "data"
    there = all((folder / f"{name}.npz").is_file() for name in data.SETS)
    if not there:
        return
    recording.body = {
        "scale": scale.to_plain(),
        "seeds": args.seeds,
        "data": data.described(folder, scale),
        "results": results(args.out),
    }
    document = recording.to_plain()
    for path in filter(None, (args.out / DOCUMENT, args.results)):
        write_document(path, document)


def _report(args: argparse.Namespace) -> int:
    source = args.source or args.out / DOCUMENT
    document = read_document(source)
    if document["benchmark"] != "prior":
        raise InputError(
            f"{source}: a measurement of '{document['benchmark']}'; name a results.json of this experiment"
        )
    if args.markdown:
        write_markdown(args.markdown, document)
        notify(f"wrote the tables of {args.markdown}")
    else:
        print("\n".join(lines(document)))
    if args.plots:
        from lab.prior.plots import write_plots

        for path in write_plots(args.plots, document):
            notify(f"wrote {path}")
    return 0
