"""The latency table by DuckDB: ``with_duckdb.py FOLDER`` with the Parquet files of the table syscalls; the s that it took come last."""

import sys
import time

import duckdb

QUERY = """
select abi, nr, count(*) as calls, quantile_disc(dur, [0.5, 0.99, 0.999]) as quantiles, max(dur) as longest
from read_parquet(?) where kind = 0 group by all order by calls desc
"""

began = time.perf_counter()
for row in duckdb.connect().execute(QUERY, [f"{sys.argv[1]}/*.parquet"]).fetchall():
    print(*row)
print(time.perf_counter() - began)
