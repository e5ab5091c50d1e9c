"""Measures the full-text search of SQLite or DuckDB in this process, one query at a time.

The argument is a JSON file: the engine, the file of documents, a folder, the queries of each kind and the seconds for each.
Prints a line of JSON: the results, or what is missing.
"""
import json
import os
import sys
import time

config = json.load(open(sys.argv[1]))
folder = config["folder"]


def documents():
    with open(config["file"]) as lines:
        for line in lines:
            row = json.loads(line)
            yield row["id"], row["title"], row["body"], row["section"], row["size"], line.rstrip("\n")


def missing(why):
    print(json.dumps({"Err": why}))
    sys.exit()


class Sqlite:
    """FTS5 in a file, all documents in one transaction."""

    def __init__(self):
        import sqlite3
        self.db = sqlite3.connect(os.path.join(folder, "fts5.sqlite"))
        self.version = "SQLite " + sqlite3.sqlite_version
        try:
            self.db.execute("CREATE VIRTUAL TABLE docs USING fts5(id UNINDEXED, title, body, section UNINDEXED, "
                            "size UNINDEXED, source UNINDEXED)")
        except sqlite3.OperationalError as error:
            missing(f"{self.version}: {error}")

    def load(self):
        self.db.executemany("INSERT INTO docs VALUES (?, ?, ?, ?, ?, ?)", documents())
        self.db.commit()

    def search(self, kind, words):
        text = {
            "or": " OR ".join(words),
            "and": " AND ".join(words),
            "phrase": '"' + " ".join(words) + '"',
            "prefix": words[0] + "*",
        }.get(kind, words[0])
        match = f"body : ({text})"
        hits = self.db.execute(
            "SELECT id, rank, source FROM docs WHERE docs MATCH ? ORDER BY rank LIMIT 10", [match]).fetchall()
        total = self.db.execute("SELECT count(*) FROM docs WHERE docs MATCH ?", [match]).fetchone()[0]
        if kind == "facet":
            self.db.execute("SELECT section, count(*) FROM docs WHERE docs MATCH ? GROUP BY section "
                            "ORDER BY 2 DESC LIMIT 10", [match]).fetchall()
        return total, hits

    cannot = {"fuzzy": "FTS5 has no fuzzy queries"}


class Duck:
    """The extension fts, whose index is made after all documents are there, and not kept up to date."""

    def __init__(self):
        try:
            import duckdb
        except ImportError:
            missing("no duckdb; it is on PyPI, with duckdb-extensions and duckdb-extension-fts")
        self.db = duckdb.connect(os.path.join(folder, "fts.duckdb"))
        self.version = "DuckDB " + duckdb.__version__
        # It would be printed among the results.
        self.db.execute("SET enable_progress_bar = false")
        try:
            from duckdb_extensions import import_extension
            import_extension("fts", con=self.db)
        except ImportError:
            missing(f"{self.version} without duckdb-extensions and duckdb-extension-fts; they are on PyPI")
        self.db.execute("LOAD fts")

    def load(self):
        self.db.execute("CREATE TABLE docs AS SELECT id, title, body, section, size, to_json(line) AS source FROM "
                        "read_json(?, format = 'newline_delimited') AS line", [config["file"]])
        self.db.execute("PRAGMA create_fts_index('docs', 'id', 'title', 'body', stemmer = 'none', stopwords = 'none')")

    def search(self, kind, words):
        match = f"fts_main_docs.match_bm25(id, ?, fields := 'body', conjunctive := {int(kind == 'and')})"
        found = f"(SELECT *, {match} AS score FROM docs) WHERE score IS NOT NULL"
        text = [" ".join(words)]
        hits = self.db.execute(f"SELECT id, score, source FROM {found} ORDER BY score DESC LIMIT 10", text).fetchall()
        total = self.db.execute(f"SELECT count(*) FROM {found}", text).fetchone()[0]
        if kind == "facet":
            self.db.execute(f"SELECT section, count(*) FROM {found} GROUP BY section ORDER BY 2 DESC LIMIT 10",
                            text).fetchall()
        return total, hits

    cannot = {
        "phrase": "no phrases in DuckDB's fts",
        "prefix": "no prefixes in DuckDB's fts",
        "fuzzy": "no fuzzy queries in DuckDB's fts",
    }


engine = {"sqlite": Sqlite, "duckdb": Duck}[config["engine"]]()
began = time.monotonic()
engine.load()
result = {"version": engine.version, "index_seconds": time.monotonic() - began, "kinds": {}}
for kind, queries in config["queries"].items():
    if kind in engine.cannot:
        result["kinds"][kind] = {"Err": engine.cannot[kind]}
        continue
    # The first queries warm caches; DuckDB takes long for each.
    took, totals = [], [engine.search(kind, words)[0] for words in queries[:8]]
    cpu, began = time.process_time(), time.monotonic()
    while queries and time.monotonic() < began + config["seconds"]:
        words = queries[len(took) % len(queries)]
        sent = time.perf_counter()
        total, hits = engine.search(kind, words)
        json.dumps({"total": total, "hits": hits})
        took.append((time.perf_counter() - sent) * 1e3)
    cpu_us = (time.process_time() - cpu) * 1e6 / max(1, len(took))
    result["kinds"][kind] = {"Ok": {"took_ms": took, "cpu_us": cpu_us, "totals": totals}}
with open("/proc/self/status") as status:
    result["rss_mib"] = next(int(line.split()[1]) for line in status if line.startswith("VmRSS:")) / 1024
result["mib"] = sum(os.path.getsize(os.path.join(folder, name)) for name in os.listdir(folder)
                    if name.startswith(("fts5", "fts."))) / 2**20
print(json.dumps({"Ok": result}))
