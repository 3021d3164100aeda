"""The latency table by DuckDB: ``with_duckdb.py FOLDER`` with the Parquet files of the table syscalls; the s that it took come last."""

import sys
import time

QUERY = """
select abi, nr, count(*) as calls, quantile_disc(dur, [0.5, 0.99, 0.999]) as quantiles, max(dur) as longest
from read_parquet(?) where kind = 0 group by all order by calls desc
"""


def main(folder: str) -> None:
    import duckdb

    began = time.perf_counter()
    for row in duckdb.connect().execute(QUERY, [f"{folder}/*.parquet"]).fetchall():
        print(*row)
    print(time.perf_counter() - began)


if __name__ == "__main__":
    main(sys.argv[1])
