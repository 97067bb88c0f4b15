"""`thoth prove`: what `python -m prover` does, beside the other commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from actors.cli.options import AsJson
from prover.command import MEBIBYTE, UNUSABLE, Order, run, with_lemmas
from prover.errors import Unusable
from prover.proving import Settings
from prover.verdict import Budget, Mode

_USUAL = Budget()

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="SMT-LIB, TIP, or .prove.")]
HowLemmas = Annotated[Mode, typer.Option("--mode", help="How lemmas are found.")]
TimeLimit = Annotated[float, typer.Option(min=0.001, help="Seconds for each goal.")]
Steps = Annotated[int, typer.Option(min=1, help="Inference steps for each goal.")]
Seed = Annotated[int, typer.Option(help="Of samples; the same seed gives the same proofs.")]
Jobs = Annotated[int, typer.Option(min=1, help="Files that are looked at side by side.")]
Memory = Annotated[int, typer.Option(min=1, help="MiB for each process.")]
Lemmas = Annotated[
    Path | None,
    typer.Option("--lemmas", metavar="DIR", help="A store of lemmas, to use and to add to."),
]
Explain = Annotated[bool, typer.Option("--explain", help="Say how each proof was found.")]
Certificate = Annotated[
    Path | None,
    typer.Option("--certificate", metavar="OUT", help="Write what proves the only FILE."),
]
Check = Annotated[
    Path | None, typer.Option("--check", metavar="CERT", help="Replay a certificate of it.")
]
Show = Annotated[bool, typer.Option("--show", help="Print the program, and prove nothing.")]


def prove(  # noqa: PLR0913, PLR0917 - one parameter per option
    files: Files,
    mode: HowLemmas = Mode.DIRECTED,
    time_limit: TimeLimit = _USUAL.seconds,
    steps: Steps = _USUAL.steps,
    seed: Seed = 0,
    jobs: Jobs = 1,
    memory: Memory = 2048,
    lemmas: Lemmas = None,
    explain: Explain = False,
    certificate: Certificate = None,
    check: Check = None,
    show: Show = False,
    as_json: AsJson = False,
) -> None:
    """Prove that functional programs are equal, or find values that refute it.

    Exit status: 0 where every goal is proved, 1 where one is not, 2 for a file of no use.
    """
    settings = Settings(mode, Budget(steps, time_limit), seed, jobs, memory * MEBIBYTE)
    try:
        settings = with_lemmas(settings, lemmas)
    except Unusable as error:
        typer.echo(error, err=True)
        raise typer.Exit(UNUSABLE) from None
    order = Order(files, settings, explain, certificate, check, show, as_json)
    raise typer.Exit(run(order))
