"""A shifted wall clock, which Python imports at the start of a test's process.

The variable ``FLOWKIT_TEST_CLOCK_SHIFT`` has the seconds.
"""

import os
import time

_shift = float(os.environ["FLOWKIT_TEST_CLOCK_SHIFT"])
_time, _time_ns = time.time, time.time_ns
time.time = lambda: _time() + _shift
time.time_ns = lambda: _time_ns() + round(_shift * 1e9)
