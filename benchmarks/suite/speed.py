"""Speed, as time, and as the ratio to something else in the same process, which no busy neighbour moves.

Less is better in every figure of this suite: asv takes a rise for a regression.
"""

import numba

from .common import LIMITS, Work, bench, is_peer, measured_ratio, median_seconds

_WORKS = list(bench.GRID)
_FLOAT32 = [work for work in _WORKS if work.endswith("float32")]
_PEERS = sorted({library for row in bench.WORKS.values() for library in row if is_peer(library)})


class Speed(Work):
    """A call of numbel on every method, dtype and regime."""

    params = (_WORKS,)
    param_names = ("work",)

    def setup(self, work: str) -> None:
        self.prepare(work)

    def time_call(self, work: str) -> None:
        self.call()

    def track_time_per_category(self, work: str) -> float:
        return 1e9 * median_seconds(self.call) / float(self.items)

    track_time_per_category.unit = "ns"  # type: ignore[attr-defined]


class Roofline:
    """Our time as a multiple of what bounds it: a plain read of the same bytes, or the bare Philox words."""

    timeout = 600
    version = "1"
    params = (_WORKS, LIMITS)
    param_names = ("work", "limit")

    def setup(self, work: str, limit: str) -> None:
        if limit not in bench.GRID[work]:
            raise NotImplementedError(f"{limit} does not bound {work}")

    def track_time_over_limit(self, work: str, limit: str) -> float:
        return measured_ratio(work, limit)

    track_time_over_limit.unit = "times the limit's duration"  # type: ignore[attr-defined]


class Peers:
    """Our time for a category as a fraction of each peer's."""

    timeout = 600
    version = "1"
    params = (
        list(bench.WORKS),
        sorted({library for row in bench.WORKS.values() for library in row if is_peer(library)}),
    )
    param_names = ("work", "peer")

    def setup(self, work: str, peer: str) -> None:
        if peer not in bench.WORKS[work]:
            raise NotImplementedError(f"{peer} does not do {work}")

    def track_time_over_peer(self, work: str, peer: str) -> float:
        return measured_ratio(work, peer)

    track_time_over_peer.unit = "times the peer's duration"  # type: ignore[attr-defined]


class Threads(Work):
    """Time on several threads as a fraction of that on one, taking turns: 0.5 on two is ideal."""

    params = (_FLOAT32, [2, 4, 8])
    param_names = ("work", "threads")

    def setup(self, work: str, threads: int) -> None:
        if threads > numba.config.NUMBA_NUM_THREADS:
            raise NotImplementedError(f"{threads} threads are more than there are here")
        self.prepare(work)

    def track_time_over_one_thread(self, work: str, threads: int) -> float:
        times: dict[int, list[float]] = {1: [], threads: []}
        for _ in range(7):
            for count, found in times.items():
                numba.set_num_threads(count)
                self.call()
                found.append(median_seconds(self.call, 3))
        return sorted(times[threads])[3] / sorted(times[1])[3]

    track_time_over_one_thread.unit = "times one thread's duration"  # type: ignore[attr-defined]
