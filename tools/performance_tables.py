"""Write the tables of docs/performance.md from measurements: performance_tables.py RESULTS"""

import argparse
import json
import sys
from pathlib import Path

from densessl.benchmark.report import FORMAT, table

PAGE = Path(__file__).resolve().parents[1] / "docs" / "performance.md"
BEGIN, END = "<!-- tables -->\n", "<!-- /tables -->"


def section(name: str, entry: dict) -> str:
    """One measurement in Markdown."""
    where = entry["environment"]
    source = f"{where['hardware']}, torch {where['versions']['torch']}, commit {where['commit']}"
    return (
        f"### {name}\n\n{source}, {where['date'][:10]}:\n\n"
        f"```\n$ python tools/{where['command']}\n{table(entry['result'])}\n```\n\n"
    )


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Write the tables of docs/performance.md.")
    parser.add_argument("results", type=Path, help="folder of the JSON files")
    parser.add_argument("--page", type=Path, default=PAGE)
    args = parser.parse_args(argv)
    entries = {path.stem: json.loads(path.read_text()) for path in args.results.glob("*.json")}
    tables = [
        section(name, entry)
        for name, entry in sorted(entries.items())
        if isinstance(entry, dict) and entry.get("format") == FORMAT
    ]
    if not tables:
        parser.error(f"no measurements in {args.results}")
    before, _, rest = args.page.read_text().partition(BEGIN)
    args.page.write_text(before + BEGIN + "".join(tables) + END + rest.partition(END)[2])
    return 0


if __name__ == "__main__":
    sys.exit(main())
