"""The kinds of account that can be simulated, by name."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from exporter.simulator.scenario import FOR_EVER, Scenario


def _stuck(name: str, summary: str, **settings: Any) -> Scenario:
    """An account whose jobs go on to wait, whatever they wait for: nobody ends or disables them."""
    quiet = {
        "auto_pool_share": 0.0,
        "auto_scale_pools": 0,
        "tasks_per_job": (300, 400),
        "job_disable_share": 0.0,
        "job_terminate_share": 0.0,
        "ended_unstarted_share": 0.0,
        "later_tasks_share": 0.0,
        "job_max_wall_clock": 86400.0,
        "node_incident_interval": 1e9,
        "preparation_share": 0.0,
        "task_failure_share": 0.0,
        "flaky_job_share": 0.0,
    }
    return Scenario(name, summary, **{**quiet, **settings})


SCENARIOS: Mapping[str, Scenario] = MappingProxyType(
    {
        scenario.name: scenario
        for scenario in (
            Scenario(
                name="steady",
                summary="A healthy account: work flows, a few things fail, as everywhere.",
            ),
            Scenario(
                name="prep-storm",
                summary="An image breaks preparation on every node: tasks wait, no task fails.",
                image_breaks_after=60.0,
                preparation_share=1.0,
                wait_for_success_share=1.0,
                preparation_failure_share=0.0,
                task_failure_share=0.0,
                flaky_job_share=0.0,
                ended_unstarted_share=0.0,
                job_terminate_share=0.0,
                job_max_wall_clock=14400.0,
            ),
            Scenario(
                name="spot-eviction",
                summary="Low-priority nodes preempted in waves: requeued tasks, preparation anew.",
                low_priority_share=0.85,
                eviction_wave_interval=(60.0, 150.0),
                preempted_for=(5.0, 30.0),
                preparation_share=1.0,
                task_median=30.0,
            ),
            Scenario(
                name="flaky-tasks",
                summary="Many tasks fail in many ways; most are retried, many of them in vain.",
                task_retries=(1, 4),
                task_failure_share=0.25,
                flaky_job_share=0.4,
                flaky_task_failure_share=0.8,
                task_failures=(
                    ("exit-1", 6.0),
                    ("exit-2", 3.0),
                    ("exit-137", 3.0),
                    ("program-not-found", 1.0),
                    ("blob-not-found", 2.0),
                    ("blob-timed-out", 2.0),
                    ("disk-full", 2.0),
                    ("unknown", 1.0),
                    ("upload-misc", 2.0),
                    ("upload-denied", 1.0),
                ),
            ),
            Scenario(
                name="flaky-prep",
                summary="Preparation fails on about half of the nodes; the others do the work.",
                preparation_share=1.0,
                preparation_retries=(0, 0),
                preparation_failure_share=0.5,
                wait_for_success_share=1.0,
                pools=(3, 3),
                auto_pool_share=0.0,
            ),
            Scenario(
                name="failing-release",
                summary="Most release tasks fail, so nodes keep what jobs left on them.",
                preparation_share=1.0,
                release_share=1.0,
                release_failure_share=0.9,
                preparation_failure_share=0.0,
                tasks_per_job=(20, 60),
                task_median=10.0,
            ),
            Scenario(
                name="failing-tasks",
                summary="Nine of ten tasks fail, by their own fault and by the service's.",
                task_retries=(0, 0),
                task_failure_share=0.9,
                flaky_job_share=0.0,
                task_median=5.0,
                tasks_per_job=(400, 800),
                preparation_share=0.0,
                task_failures=(("exit-1", 1.0), ("blob-timed-out", 1.0), ("disk-full", 1.0)),
            ),
            _stuck(
                name="blocked-tasks",
                summary="The first task of each job fails, and all the others depend on it.",
                task_retries=(0, 0),
                dependencies_share=1.0,
                first_task_failure_share=1.0,
            ),
            _stuck(
                name="large-tasks",
                summary="Tasks ask for more slots than any node has: they wait beside idle nodes.",
                required_slots=((32, 1.0),),
                required_slots_fit=False,
            ),
            _stuck(
                name="stalled",
                summary="Scheduling stops: tasks wait beside idle nodes, and nothing fails.",
                required_slots=((1, 1.0),),
                scheduling_stops_after=30.0,
            ),
            _stuck(
                name="unusable-nodes",
                summary="One node after the other became unusable: tasks wait, nothing runs.",
                node_incident_interval=30.0,
                node_incidents=(("unusable", 1.0),),
                node_away_for=FOR_EVER,
                low_priority_share=0.0,
            ),
            _stuck(
                name="start-task-failed",
                summary="The start task fails on every node, so that none takes a task.",
                node_start_task_failure_share=1.0,
                node_start_task_failed_for=FOR_EVER,
            ),
            Scenario(
                name="backlog",
                summary="Far more tasks than slots: they run, but most wait for very long.",
                pools=(1, 1),
                auto_pool_share=0.0,
                tasks_per_job=(2000, 2000),
                later_tasks_share=0.0,
                job_disable_share=0.0,
                job_terminate_share=0.0,
                preparation_share=0.0,
                flaky_job_share=0.0,
                job_max_wall_clock=86400.0,
            ),
            Scenario(
                name="leaked-jobs",
                summary="Jobs whose tasks are all completed stay active: nobody ends them.",
                left_open_share=1.0,
                tasks_per_job=(5, 20),
                task_median=5.0,
                later_tasks_share=0.0,
                preparation_share=0.0,
                job_disable_share=0.0,
                job_terminate_share=0.0,
                job_max_wall_clock=86400.0,
            ),
        )
    }
)
