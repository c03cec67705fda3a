"""The operations of the REST API: which URL is which, what it takes, and what it answers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from types import MappingProxyType
from urllib.parse import unquote

from exporter.simulator import filters
from exporter.simulator.error_answers import (
    invalid_uri,
    job_not_found,
    job_schedule_not_found,
    neither_preparation_nor_release,
    pool_not_found,
    task_not_found,
)
from exporter.simulator.filter_language import Predicate
from exporter.simulator.members import (
    JOB_MEMBERS,
    TASK_MEMBERS,
    job_url,
    task_url,
)
from exporter.simulator.model import Job
from exporter.simulator.paging import Entity, Place, TokenMint, next_link, page_of, place_behind
from exporter.simulator.pool_members import NODE_COUNTS_MEMBERS, POOL_MEMBERS, pool_url
from exporter.simulator.query import Options, Query, api_version, parse_query
from exporter.simulator.record_members import RECORD_MEMBERS
from exporter.simulator.wire import View, element_body, list_body, task_counts_body
from exporter.simulator.world import World


@dataclass(frozen=True, slots=True)
class Call:
    """One request to one operation. `base` is scheme and host, `url` the same with the raw path."""

    operation: str
    ids: tuple[str, ...]
    base: str
    url: str
    parameters: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """A body, and for a Get the tick of the entity's last change and its URL."""

    body: str
    modified: int | None = None
    entity_url: str | None = None


@dataclass(frozen=True)
class Operations:
    """Answers calls from the world as it is now."""

    world: World
    mint: TokenMint
    orders: Random
    """Draws the orders of shuffled listings."""

    def answer(self, call: Call) -> Answer:
        """Raise BatchError where the service would refuse."""
        return _ANSWERS[call.operation](self, call)

    def _view(self, call: Call, query: Query) -> View:
        capitals = self.world.scenario.pool_ids_in_capitals
        return View(call.base, query.version, self.world.tick, query.statistics, capitals)

    def _job(self, call: Call) -> Job:
        job = self.world.find_job(call.ids[0])
        if job is None:
            raise job_not_found()
        return job

    def _page(
        self, call: Call, options: Options, suffix: str, entities: Iterable[Entity]
    ) -> Answer:
        query = parse_query(call.parameters, options)
        view = self._view(call, query)
        # A token is good for this list with this filter, whatever host it is asked of.
        scope = f"{call.url.removeprefix(call.base).lower()}?{query.filter_text}"
        if query.skip_token is None:
            behind = Place(-1, self._new_shuffle())
        else:
            behind = self.mint.place(scope, query.skip_token)
        scenario = self.world.scenario
        size = min(query.page_size, scenario.page_size)
        page, more = page_of(entities, behind, size, self._predicate(query))
        link = None
        if more:
            following = place_behind(page, behind.shuffle, scenario.repeat_share)
            link = next_link(call.url, query.kept, self.mint.token(scope, following))
        return Answer(list_body(suffix, page, query.members, view, link))

    def _new_shuffle(self) -> int:
        """An order for a listing that begins."""
        return self.orders.randint(1, 0xFFFFFF) if self.world.scenario.shuffled_lists else 0

    def _predicate(self, query: Query) -> Predicate | None:
        """The filter over what the index knows, where that is late."""
        predicate, index = query.predicate, self.world.index
        if predicate is None or not query.by_time or not index.late:
            return predicate

        def test(entity: object) -> bool:
            seen = index.seen(entity)
            return seen is not None and predicate(seen)

        return test

    def job_list(self, call: Call) -> Answer:
        """Job_List."""
        return self._page(call, _JOB_LIST, "jobs", self.world.jobs.values())

    def job_list_from_schedule(self, call: Call) -> Answer:
        """Job_ListFromJobSchedule: a schedule is known by its jobs."""
        wanted = call.ids[0].lower()
        jobs = [job for job in self.world.jobs.values() if job.schedule_id == wanted]
        if not jobs:
            raise job_schedule_not_found()
        return self._page(call, _JOB_LIST, "jobs", jobs)

    def job_get(self, call: Call) -> Answer:
        """Job_Get."""
        query = parse_query(call.parameters, _JOB_GET)
        job, view = self._job(call), self._view(call, query)
        body = element_body("jobs/@Element", job, query.members, view)
        return Answer(body, job.modified, job_url(job, view))

    def task_counts(self, call: Call) -> Answer:
        """Job_GetTaskCounts."""
        query = parse_query(call.parameters, _TASK_COUNTS)
        job = self._job(call)
        view = self._view(call, query)
        counts, slots = job.reported_task_counts, job.reported_task_slot_counts
        return Answer(task_counts_body(counts, slots, view))

    def preparation_release(self, call: Call) -> Answer:
        """Job_ListPreparationAndReleaseTaskStatus."""
        job = self._job(call)
        if job.preparation is None and job.release is None:
            api_version(call.parameters)
            raise neither_preparation_nor_release()
        suffix = "jobpreparationandreleasetaskstatuslist"
        return self._page(call, _RECORD_LIST, suffix, job.records.values())

    def task_list(self, call: Call) -> Answer:
        """Task_List."""
        return self._page(call, _TASK_LIST, "tasks", self._job(call).tasks.values())

    def task_get(self, call: Call) -> Answer:
        """Task_Get."""
        query = parse_query(call.parameters, _TASK_GET)
        task = self.world.find_task(self._job(call), call.ids[1])
        if task is None:
            raise task_not_found()
        view = self._view(call, query)
        body = element_body("tasks/@Element", task, query.members, view)
        return Answer(body, task.modified, task_url(task, view))

    def subtask_list(self, call: Call) -> Answer:
        """Task_ListSubtasks: no task here is of many instances, so there are none."""
        query = parse_query(call.parameters, _SUBTASK_LIST)
        if self.world.find_task(self._job(call), call.ids[1]) is None:
            raise task_not_found()
        return Answer(list_body("subtaskinfo", (), {}, self._view(call, query), None))

    def node_counts(self, call: Call) -> Answer:
        """Account_ListPoolNodeCounts."""
        return self._page(call, _NODE_COUNTS, "poolnodecounts", self.world.pools.values())

    def pool_list(self, call: Call) -> Answer:
        """Pool_List."""
        return self._page(call, _POOL_LIST, "pools", self.world.pools.values())

    def pool_get(self, call: Call) -> Answer:
        """Pool_Get."""
        query = parse_query(call.parameters, _POOL_GET)
        pool = self.world.find_pool(call.ids[0])
        if pool is None:
            raise pool_not_found()
        view = self._view(call, query)
        body = element_body("pools/@Element", pool, query.members, view)
        return Answer(body, pool.modified, pool_url(pool, view))


_MOST = 1000
_JOB_LIST = Options(JOB_MEMBERS, filter=filters.JOB_FILTER, expand=True, most=_MOST)
_JOB_GET = Options(JOB_MEMBERS, expand=True)
_TASK_COUNTS = Options({}, select=False)
_RECORD_LIST = Options(RECORD_MEMBERS, filter=filters.RECORD_FILTER, most=_MOST)
_TASK_LIST = Options(TASK_MEMBERS, filter=filters.TASK_FILTER, expand=True, most=_MOST)
_TASK_GET = Options(TASK_MEMBERS, expand=True)
_SUBTASK_LIST = Options({}, select=True)
_POOL_LIST = Options(POOL_MEMBERS, filter=filters.POOL_FILTER, expand=True, most=_MOST)
_POOL_GET = Options(POOL_MEMBERS, expand=True)
_NODE_COUNTS = Options(
    NODE_COUNTS_MEMBERS, filter=filters.NODE_COUNTS_FILTER, select=False, most=10
)

_ANSWERS: Mapping[str, Callable[[Operations, Call], Answer]] = MappingProxyType(
    {
        "Job_List": Operations.job_list,
        "Job_ListFromJobSchedule": Operations.job_list_from_schedule,
        "Job_Get": Operations.job_get,
        "Job_GetTaskCounts": Operations.task_counts,
        "Job_ListPreparationAndReleaseTaskStatus": Operations.preparation_release,
        "Task_List": Operations.task_list,
        "Task_Get": Operations.task_get,
        "Task_ListSubtasks": Operations.subtask_list,
        "Account_ListPoolNodeCounts": Operations.node_counts,
        "Pool_List": Operations.pool_list,
        "Pool_Get": Operations.pool_get,
    }
)

OPERATIONS = frozenset(_ANSWERS)
"""All there are, by their names in the REST API's specification."""

WITH_HEAD = frozenset({"Job_Get", "Task_Get", "Pool_Get"})
"""Operations that HEAD may ask, to learn whether something exists."""

# The fixed segments of each path, with an empty one wherever an id stands.
_PATHS: Mapping[tuple[str, ...], str] = MappingProxyType(
    {
        ("jobs",): "Job_List",
        ("jobschedules", "", "jobs"): "Job_ListFromJobSchedule",
        ("jobs", ""): "Job_Get",
        ("jobs", "", "taskcounts"): "Job_GetTaskCounts",
        (
            "jobs",
            "",
            "jobpreparationandreleasetaskstatus",
        ): "Job_ListPreparationAndReleaseTaskStatus",
        ("jobs", "", "tasks"): "Task_List",
        ("jobs", "", "tasks", ""): "Task_Get",
        ("jobs", "", "tasks", "", "subtasksinfo"): "Task_ListSubtasks",
        ("nodecounts",): "Account_ListPoolNodeCounts",
        ("pools",): "Pool_List",
        ("pools", ""): "Pool_Get",
    }
)


def find_operation(raw_path: str) -> tuple[str, tuple[str, ...]]:
    """The operation at a path as it was sent, and the ids in it, decoded; 400 where none is."""
    segments = [unquote(segment) for segment in raw_path.strip("/").split("/")]
    fixed = tuple(
        segment.lower() if index % 2 == 0 else "" for index, segment in enumerate(segments)
    )
    operation = _PATHS.get(fixed)
    ids = tuple(segments[1::2])
    if operation is None or not all(ids):
        raise invalid_uri()
    return operation, ids
