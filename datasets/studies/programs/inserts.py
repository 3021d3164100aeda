"""Prints SQL that makes a table and inserts rows, each in a transaction of its own: a write and a sync for every one.

python3 inserts.py [ROWS]
"""

import sys

print("PRAGMA synchronous = FULL;\nCREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT, amount REAL);\nCREATE INDEX by_name ON things (name);")
for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 500):
    print(f"INSERT INTO things VALUES ({number}, 'thing {number * 7919 % 1009}', {number * 0.37:.2f});")
