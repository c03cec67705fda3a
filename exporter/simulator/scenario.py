"""What kind of account is simulated: every rate, duration and probability, by name.

Durations are seconds of simulated time; a pair is a lowest and a highest value, drawn evenly.
Probabilities lie in 0..1. Failures are drawn by weight from `failures.FAILURE_KINDS`.
"""

from dataclasses import dataclass

Span = tuple[float, float]
Whole = tuple[int, int]
Weights = tuple[tuple[str, float], ...]

FOR_EVER: Span = (1e9, 1e9)


@dataclass(frozen=True)
class Scenario:
    """One simulated account; a test takes a variant with `dataclasses.replace`."""

    name: str
    summary: str

    # The account before `start`: how much simulated life it has behind it.
    warm_up: float = 600.0

    # Jobs
    slots_per_job: float = 20.0
    """Fixed pools are made until there are about so many task slots for each job."""
    pools: Whole = (3, 60)
    """The least and the most fixed pools."""
    auto_pool_share: float = 0.08
    pipelines_only: bool = False
    """Job ids are all `nf-<pipeline>-<number>`, instead of several habits side by side."""
    metadata_share: float = 0.8
    display_name_share: float = 0.4
    tasks_per_job: Whole = (40, 400)
    later_tasks_share: float = 0.3
    later_tasks_delay: Span = (15.0, 60.0)
    job_arrival_delay: Span = (0.2, 3.0)
    job_retention: Span = (60.0, 240.0)
    job_deletion: Span = (1.0, 4.0)
    job_max_wall_clock: float = 1800.0
    job_disable_share: float = 0.15
    job_disable_after: Span = (5.0, 90.0)
    job_disabled_for: Span = (10.0, 40.0)
    left_open_share: float = 0.0
    """Jobs that their users forget: they stay active when all their tasks are completed."""
    job_terminate_share: float = 0.04
    job_terminate_after: Span = (30.0, 240.0)

    # Tasks
    task_median: float = 20.0
    task_spread: float = 0.5
    required_slots: tuple[tuple[int, float], ...] = ((1, 0.8), (2, 0.2))
    required_slots_fit: bool = True
    """No task asks for more slots than a node of its pool has; else such a one waits for ever."""
    dependencies_share: float = 0.0
    """Jobs of which every task but the first depends on the first, and is blocked if it fails."""
    first_task_failure_share: float = 0.02
    """Of the attempts at the first task of such a job, those that fail."""
    scheduling_stops_after: float | None = None
    """So long after the start no task is put on a node any more, and nobody is told why."""
    task_retries: Whole = (0, 2)
    task_failure_share: float = 0.02
    flaky_job_share: float = 0.2
    flaky_task_failure_share: float = 0.15
    task_failures: Weights = (
        ("exit-1", 6.0),
        ("exit-2", 2.0),
        ("exit-137", 2.0),
        ("program-not-found", 1.0),
        ("blob-not-found", 2.0),
        ("container-image", 0.7),
        ("blob-timed-out", 1.0),
        ("disk-full", 1.0),
        ("unknown", 0.4),
        ("upload-misc", 1.0),
        ("upload-denied", 0.4),
    )
    ended_unstarted_share: float = 0.25
    ended_unstarted_tasks: Whole = (1, 4)
    ended_unstarted_after: Span = (0.1, 20.0)
    etag_follows_task_state: bool = True

    # Preparation and release
    preparation_share: float = 0.7
    release_share: float = 0.7
    wait_for_success_share: float = 0.8
    rerun_on_reboot_share: float = 0.9
    preparation_median: float = 6.0
    preparation_spread: float = 0.4
    preparation_retries: Whole = (0, 2)
    preparation_failure_share: float = 0.05
    preparation_failures: Weights = (
        ("exit-1", 5.0),
        ("program-not-found", 0.5),
        ("blob-not-found", 1.5),
        ("blob-access-denied", 0.7),
        ("blob-timed-out", 1.5),
        ("disk-full", 1.5),
    )
    image_breaks_after: float | None = None
    """So long after the start a new image comes to every node, on which all preparation fails."""
    image_rollout: Span = (0.0, 20.0)
    broken_image_failures: Weights = (
        ("exit-127", 5.0),
        ("program-not-found", 2.0),
        ("disk-full", 1.0),
    )
    release_median: float = 3.0
    release_spread: float = 0.4
    release_failure_share: float = 0.04
    release_failures: Weights = (
        ("exit-1", 3.0),
        ("exit-negative", 1.0),
        ("program-not-found", 1.0),
        ("disk-full", 2.0),
    )
    preprocessing: Span = (0.2, 2.0)

    # Nodes
    slots_per_node: tuple[int, ...] = (8, 4, 16, 4)
    low_priority_share: float = 0.3
    auto_pool_size_share: float = 0.25
    auto_scale_pools: int = 1
    auto_scale_interval: float = 45.0
    auto_scale_range: tuple[float, float] = (0.6, 1.3)
    node_incident_interval: float = 900.0
    node_incidents: Weights = (
        ("leave", 2.0),
        ("reboot", 3.0),
        ("reimage", 1.5),
        ("unusable", 1.0),
        ("offline", 1.0),
        ("unknown", 0.7),
    )
    preemption_weight: float = 6.0
    preempted_for: Span = (10.0, 40.0)
    eviction_wave_interval: Span | None = None
    """From one wave of preemptions to the next; None: there are no waves."""
    eviction_wave_share: Span = (0.3, 0.9)
    """Of the low-priority nodes that are up, those that a wave takes."""
    eviction_wave_length: Span = (0.0, 10.0)
    eviction_for_good_share: float = 0.3
    """Of the nodes that a wave takes, those that never come back: others are made instead."""
    node_creating: Span = (2.0, 6.0)
    node_starting: Span = (2.0, 5.0)
    node_start_task: Span = (1.0, 4.0)
    node_start_task_failure_share: float = 0.04
    node_start_task_failed_for: Span = (15.0, 40.0)
    node_restarting: Span = (4.0, 10.0)
    node_leaving: Span = (2.0, 5.0)
    node_away_for: Span = (10.0, 40.0)

    # Oddities of the service and its users; all off but where a scenario sets them.
    count_lag: float = 0.0
    """Task counts are answered as they were so many seconds ago."""
    count_correction_interval: float = 0.0
    """About every so many seconds a job's answered counts go too high for a while; 0: never."""
    count_correction_size: Whole = (1, 5)
    count_correction_after: Span = (20.0, 60.0)
    count_correction_failed_share: float = 0.3
    """The others are too high in `succeeded`."""
    index_lag: float = 0.0
    """Lists with a `$filter` on times see changes of tasks and records so many seconds late."""
    clock_skew: Span = (0.0, 0.0)
    """Seconds by which a node's clock, which its runs' times are from, is ahead."""
    task_deletion_interval: float = 0.0
    """About every so many seconds a user deletes completed tasks of a job; 0: never."""
    tasks_deleted: Whole = (1, 5)
    succeeded_task_deleted_after: Span | None = None
    """So many seconds after a task has succeeded its user deletes it, as some engines do."""
    job_recreate_share: float = 0.0
    """Jobs that are made again under the same id soon after they are gone."""
    job_recreate_after: Span = (0.25, 0.25)
    job_recreate_case_share: float = 0.0
    """Share of the jobs made again whose id is written in the other case."""
    job_recreate_twice_share: float = 0.0
    """Share of the jobs made again that are deleted at once and made once more."""
    job_recreate_twice_after: Span = (0.3, 2.0)
    job_delete_active_share: float = 0.0
    """Jobs that a user deletes while they are active, so that their release runs then."""
    job_delete_active_after: Span = (10.0, 120.0)
    job_storm_interval: Span | None = None
    """From one storm to the next, in which many jobs are submitted beside the others."""
    job_storm_size: Whole = (100, 200)
    job_storm_length: Span = (0.0, 10.0)
    """How many seconds after its begin the jobs of a storm come."""
    auto_pool_failure_share: float = 0.0
    """Share of the auto pools that cannot be made: their jobs complete at once."""
    terminate_reasons: Weights = ()
    """What users say why they terminate a job; nothing: `UserTerminate`."""
    container_share: float = 0.0
    """Completed runs that say in which container they were."""
    exit_code_only_share: float = 0.0
    """Completed runs without result, and without failureInfo where the exit code is enough."""
    pool_ids_in_capitals: bool = False
    """Tasks and records write pool ids in capitals; the pools themselves do not."""
    shuffled_lists: bool = False
    """Each listing comes in an order of its own."""
    repeat_share: float = 0.0
    """Of a page's entities, those that stand on the next page once more."""
    page_size: int = 1000
    """The most entities of a page, where the operation's own limit is not lower."""
