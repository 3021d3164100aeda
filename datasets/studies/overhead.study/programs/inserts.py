"""Prints SQL that makes a table and inserts rows, each in a transaction of its own.

With a write-ahead log that is synced at checkpoints, as SQLite's documentation advises for most programs: where each transaction waits
for the disk, the time is the disk's, differs threefold from run to run, and hides what a tool costs.

python3 inserts.py [ROWS]
"""

import sys

print("PRAGMA journal_mode = WAL;\nPRAGMA synchronous = NORMAL;")
print("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT, amount REAL);\nCREATE INDEX by_name ON things (name);")
for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 10_000):
    print(f"INSERT INTO things VALUES ({number}, 'thing {number * 7919 % 1009}', {number * 0.37:.2f});")
