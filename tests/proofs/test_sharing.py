"""What callers of one prover share: lemmas, its processes, and the cores beside others."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest

from cluster.proofs import ProofVerdict
from protos.thoth.v1 import prover_pb2 as pb
from prover.checker import verify
from prover.store.database import FILE
from prover.syntax.problem import parse
from tests.proofs.bodies import COMMUTES, ENDLESS, Stub, searches, serving, until

LEFT_S = 1.0  # after a caller left, nothing is searched for it any more


@pytest.fixture
async def stub(tmp_path: Path) -> AsyncIterator[Stub]:
    async with serving(tmp_path, processes=2) as stub:
        yield stub


RENAMED = COMMUTES.replace("plus", "add").replace("succ", "next")


async def test_a_problem_is_proved_by_lemmas_that_another_one_left(tmp_path: Path) -> None:
    async with serving(tmp_path, processes=1, max_lemmas_bytes=2**20) as stub:
        first = await stub.only(COMMUTES, certificate=True)
        kept = stub.counted('thoth_lemmas_total{what="kept"}')
        assert kept > 1
        assert stub.counted('thoth_lemmas_total{what="known"}') == 0
        again = await stub.only(RENAMED, certificate=True, explanation=True)
        assert stub.counted('thoth_lemmas_total{what="known"}') == kept
        assert any("It was known" in line for line in again.explanation)
        said = str(verify(parse(RENAMED.encode(), "problem.prove"), again.certificate))
        assert said == f"proved: {again.checked}"
        assert first.verdict is again.verdict is ProofVerdict.PROVED
    assert (tmp_path / "lemmas").is_dir()
    async with serving(tmp_path, processes=1, max_lemmas_bytes=2**20) as stub:
        await stub.only(COMMUTES)
        assert stub.counted('thoth_lemmas_total{what="known"}') == kept


async def test_no_lemma_of_a_tenant_serves_another(tmp_path: Path) -> None:
    async with serving(tmp_path, processes=1, max_lemmas_bytes=2**20) as stub:
        await stub.only(COMMUTES, tenant="alice")
        await stub.only(COMMUTES, tenant="bob")
        assert stub.counted('thoth_lemmas_total{what="known"}') == 0
        await stub.only(COMMUTES, tenant="alice")
        assert stub.counted('thoth_lemmas_total{what="known"}') > 0


async def test_without_a_word_nothing_is_kept(stub: Stub, tmp_path: Path) -> None:
    await stub.only(COMMUTES)
    assert stub.counted('thoth_lemmas_total{what="kept"}') == 0
    assert not (tmp_path / "lemmas").exists()


async def test_lemmas_that_are_of_no_use_cost_no_proof(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(tmp_path, processes=1, max_lemmas_bytes=2**20) as stub:
        await stub.only(COMMUTES)
        file = tmp_path / "lemmas" / FILE
        with closing(sqlite3.connect(file)) as database, database:
            database.execute("UPDATE lemmas SET text = replace(text, 'rewrite', 'compute')")
        again = await stub.only(COMMUTES)
        assert again.verdict is ProofVerdict.PROVED
        assert stub.counted('thoth_lemmas_total{what="rejected"}') > 0
        file.write_bytes(b"no database" * 1000)
        assert (await stub.only(COMMUTES)).verdict is ProofVerdict.PROVED
    assert "proving without lemmas" in caplog.text


# Fair to all


async def test_a_tenant_of_many_problems_lets_others_in_between(tmp_path: Path) -> None:
    ended: list[str] = []

    async def asked(stub: Stub, tenant: str) -> None:
        await stub.only(COMMUTES, tenant=tenant)
        ended.append(tenant)

    async with serving(tmp_path, processes=1) as stub:
        many = [asyncio.create_task(asked(stub, "many")) for _ in range(6)]
        await until(lambda: stub.counted("thoth_num_proofs_waiting") == 5)
        await asyncio.gather(asked(stub, "one"), *many)
    assert ended.index("one") <= 2


async def test_searches_stand_back_for_others(tmp_path: Path) -> None:
    own = os.nice(0)
    async with serving(tmp_path, processes=1, nice=7) as stub:
        asked = asyncio.ensure_future(stub.prove(ENDLESS, time_limit_s=5.0))
        await until(lambda: any(each.nice() == own + 7 for each in searches()))
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
    assert os.nice(0) == own


async def test_a_portfolio_takes_a_second_process_where_one_is_idle(tmp_path: Path) -> None:
    mode = pb.ProofMode.Value("PROOF_MODE_PORTFOLIO")
    for processes in (2, 1):
        async with serving(tmp_path, processes=processes) as stub:
            asked = asyncio.ensure_future(stub.prove(ENDLESS, mode=mode, time_limit_s=30.0))
            await until(lambda most=processes: len(searches()) == most)  # type: ignore[misc]
            await asyncio.sleep(0.5)
            assert len(searches()) == processes
            asked.cancel()
            await asyncio.gather(asked, return_exceptions=True)
            await until(lambda: not searches(), within_s=LEFT_S)
