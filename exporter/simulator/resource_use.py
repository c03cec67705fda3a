"""What a task used of its node."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class TaskStatistics:
    """What `$expand=stats` gives for a task that has started; spans in ticks, sizes in GiB."""

    start_time: int
    last_update_time: int
    user_cpu_time: int
    kernel_cpu_time: int
    wall_clock_time: int
    read_iops: int
    write_iops: int
    read_io_gib: float
    write_io_gib: float
    wait_time: int


def task_statistics(created: int, started: int, until: int, weight: float) -> TaskStatistics:
    """The use of a task that ran from one tick to another; its weight says how much that is."""
    wall = max(0, until - started)
    return TaskStatistics(
        start_time=started,
        last_update_time=until,
        user_cpu_time=int(wall * (0.35 + 0.6 * weight)),
        kernel_cpu_time=int(wall * 0.05 * weight),
        wall_clock_time=wall,
        read_iops=int(wall * weight) // 40_000,
        write_iops=int(wall * weight) // 90_000,
        read_io_gib=round(wall * weight / 8e8, 9),
        write_io_gib=round(wall * weight / 2e9, 9),
        wait_time=max(0, started - created),
    )
