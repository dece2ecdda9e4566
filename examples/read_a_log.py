"""Reads the log of a run: `python examples/read_a_log.py FILE.mcap [TOPIC]`.

Needs the `log` extra, and a log (`edge-run --log FILE.mcap`, or `arm.run(..., log="FILE.mcap")`).
"""

import sys
from collections import Counter

import edge

counts: Counter[str] = Counter()
for message in edge.read_log(sys.argv[1]):
    counts[message.topic] += 1
    if message.topic == (sys.argv[2] if len(sys.argv) > 2 else "/decisions"):
        print(message.time_ns, message.content)
print(dict(counts))
