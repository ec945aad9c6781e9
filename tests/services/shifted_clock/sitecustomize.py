"""Imported by Python at the start of a test's process: shifts its wall clock by the seconds in
``FLOWKIT_TEST_CLOCK_SHIFT``.
"""

import os
import time

_shift = float(os.environ["FLOWKIT_TEST_CLOCK_SHIFT"])
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _shift
time.time_ns = lambda: _time_ns() + round(_shift * 1e9)
