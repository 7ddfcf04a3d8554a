"""What this machine and this Postgres can do at most, measured without our code."""

from __future__ import annotations

import os
import time

import asyncpg


async def commits_per_second(dsn: str, seconds: float) -> float:
    """Single-row inserts, each its own commit, on one connection."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("create temp table one (n int)")
        await connection.execute("drop table if exists bench_commits")
        await connection.execute("create table bench_commits (n bigint)")
        insert = await connection.prepare("insert into bench_commits values ($1)")
        count, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            await insert.fetch(count)
            count += 1
        return count / took
    finally:
        await connection.execute("drop table if exists bench_commits")
        await connection.close()


async def rows_per_second(dsn: str, seconds: float, batch: int = 100) -> float:
    """Event-sized rows through `unnest`, *batch* rows a commit, on one connection."""
    connection = await asyncpg.connect(dsn)
    try:
        await connection.execute("drop table if exists bench_rows")
        await connection.execute(
            "create table bench_rows (id bigint primary key, data json, hash bytea)"
        )
        insert = await connection.prepare(
            "insert into bench_rows select * from unnest($1::bigint[], $2::json[], $3::bytea[])"
        )
        data, digest = ['{"step":"first","output":1}'] * batch, [os.urandom(32)] * batch
        count, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            await insert.fetch(list(range(count, count + batch)), data, digest)
            count += batch
        return count / took
    finally:
        await connection.execute("drop table if exists bench_rows")
        await connection.close()
