#!/usr/bin/env python3
"""What `pelton flights` must say, computed apart from it: Python's standard library, the whole input in memory, no windows
that open and close. Prints a row of JSON for each result, sorted, and on stderr how many records went where.

The rules (hourly windows by scheduled departure; the file is one partition):
  V(r)   the watermark just before record r: the greatest scheduled time before r in the file, less 60 minutes
  counts r counts in its window iff end + allowed lateness > V(r); otherwise it is late
  fired  with one correction, the on-time result of a window holds what has V(r) < end; the rest that counts comes in
         one correction, which holds everything

  check_flights.py FILE [--lateness HOURS] [--one-correction] [--late FILE]
"""

import argparse
import gzip
import json
import sys
from calendar import timegm
from time import gmtime, strftime, strptime

HOUR = 3600
BOUND = HOUR
FORM = "%Y-%m-%dT%H:%M:%SZ"


def lines(path):
    with open(path, "rb") as f:
        packed = f.read(2) == b"\x1f\x8b"
    with (gzip.open if packed else open)(path, "rb") as f:
        yield from f


class Cell:
    """Departures, cancellations and delays of one origin and carrier in one hour."""

    def __init__(self):
        self.delays = []
        self.cancelled = 0

    def add(self, flight):
        if flight["cancelled"]:
            self.cancelled += 1
        else:
            self.delays.append(flight["dep_delay_min"])

    def row(self, key, **more):
        start, origin, carrier = key
        n = len(self.delays)
        return {
            "hour": strftime(FORM, gmtime(start)),
            "origin": origin,
            "carrier": carrier,
            "departures": n,
            "cancelled": self.cancelled,
            "mean_delay_min": sum(self.delays) / n if n else None,
            "worst_delay_min": max(self.delays) if n else None,
            **more,
        }


def main():
    args = argparse.ArgumentParser()
    args.add_argument("file")
    args.add_argument("--lateness", type=int, default=0, metavar="HOURS")
    args.add_argument("--one-correction", action="store_true")
    args.add_argument("--late", metavar="FILE")
    args = args.parse_args()

    allowed = args.lateness * HOUR
    all_of, on_time, corrected = {}, {}, set()
    watermark = None
    counts = {"in": 0, "counted": 0, "late": 0}
    late = []
    for line in lines(args.file):
        flight = json.loads(line)
        time = timegm(strptime(flight["scheduled"], FORM))
        start = time - time % HOUR
        end = start + HOUR
        key = (start, flight["origin"], flight["carrier"])
        counts["in"] += 1
        v = watermark
        if v is not None and end + allowed <= v:
            counts["late"] += 1
            late.append(line)
        else:
            counts["counted"] += 1
            all_of.setdefault(key, Cell()).add(flight)
            if v is None or end > v:
                on_time.setdefault(key, Cell()).add(flight)
            else:
                corrected.add(key)
        watermark = max(time - BOUND, time - BOUND if v is None else v)

    if args.one_correction:
        rows = [c.row(k, firing="on_time") for k, c in on_time.items()]
        rows += [all_of[k].row(k, firing="correction") for k in corrected]
    else:
        rows = [c.row(k) for k, c in all_of.items()]
    texts = sorted(json.dumps(row, separators=(",", ":")) for row in rows)
    sys.stdout.write("".join(text + "\n" for text in texts))
    if args.late:
        with open(args.late, "wb") as f:
            f.writelines(late)
    print(json.dumps({**counts, "results": len(rows)}), file=sys.stderr)


main()
