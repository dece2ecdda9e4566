"""A child that prints where it imports from."""

import json
import sys


def main() -> None:
    print(json.dumps(sys.path))
