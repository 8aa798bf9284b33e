"""The time of each phase."""

import time

from lit_mbrl.profiling import PHASES, PhaseProfiler


def test_seconds_add_up_and_what_is_taken_is_what_came_since() -> None:
    profiler = PhaseProfiler()
    for _ in range(2):
        with profiler.profile("fit"):
            time.sleep(0.01)
    first = profiler.take()
    assert first["fit"] >= 0.019 and first["evaluate"] == 0
    with profiler.profile("evaluate"):
        time.sleep(0.01)
    with profiler.profile("what is no phase"):
        time.sleep(0.01)
    second = profiler.take()
    assert second["fit"] == 0 and second["evaluate"] >= 0.009
    assert profiler.seconds["fit"] == first["fit"], "they are those since the process began"
    assert set(profiler.seconds) == set(second) == set(PHASES.values())
