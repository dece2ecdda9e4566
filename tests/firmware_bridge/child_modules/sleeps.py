"""A child that does nothing for a minute."""

import time


def main() -> None:
    time.sleep(60)
