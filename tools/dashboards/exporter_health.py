"""The exporter itself: whether what the other dashboards show is fresh, and what it costs."""

from __future__ import annotations

from tools.dashboards.building import (
    GREEN,
    ORANGE,
    RED,
    Board,
    Column,
    Figure,
    Lines,
    Query,
    Rows,
    Section,
)
from tools.dashboards.exporter_vocabulary import (
    ACCOUNT,
    BUDGET,
    COLLECTORS,
    INSTANCE,
    JOB,
    NO_POLL,
    NOT_SCRAPED,
    OF_ACCOUNT,
    OF_PROCESS,
    age,
    failing,
    of_exporter,
    quantile,
    rate,
)
from tools.dashboards.vocabulary import EXPORTER_UID

NOW = Section(
    "Now",
    (
        Figure(
            "Scrapes",
            "Whether Prometheus can scrape each process of the exporter.",
            NOT_SCRAPED,
            (Query(f"min by (instance) (up{{{OF_PROCESS}}})", "{{instance}}"),),
            width=12,
            texts=(("0", "down", RED), ("1", "up", GREEN)),
            runbook="AzureBatchExporterDown",
        ),
        Figure(
            "Accounts",
            "Whether the exporter can poll each account: no failure that concerns all of it.",
            NO_POLL,
            (Query(f"min by (account) (azure_batch_up{{{OF_ACCOUNT}}})", "{{account}}"),),
            width=12,
            texts=(("0", "failing", RED), ("1", "up", GREEN)),
            runbook="AzureBatchAccountUnreachable",
        ),
        Figure(
            "Polls that fail",
            "Jobs and collectors of which the last poll failed; a group counts once.",
            NO_POLL,
            (Query(f"sum(azure_batch_job_scrape_success{{{OF_ACCOUNT}}} == bool 0)"),),
            width=4,
            steps=((None, GREEN), (1, RED)),
            runbook="AzureBatchPollsFailing",
        ),
        Figure(
            "Oldest data",
            "Age of the oldest value of a job. At most the polling interval while all is well; of"
            " idle jobs `idle_interval`.",
            NO_POLL,
            (Query(age("job")),),
            unit="s",
            decimals=0,
            width=4,
            steps=((None, GREEN), (300, ORANGE), (900, RED)),
            runbook="AzureBatchDataStale",
        ),
        Figure(
            "Configuration",
            "Whether the configuration could be loaded the last time that it was tried.",
            NOT_SCRAPED,
            (Query(f"min(azure_batch_exporter_config_last_reload_successful{{{OF_PROCESS}}})"),),
            width=4,
            texts=(("0", "refused", RED), ("1", "loaded", GREEN)),
            runbook="AzureBatchConfigReloadFailed",
        ),
        Figure(
            "State file",
            "Whether counters are saved: they go on where they stopped after a restart.",
            "No `state_file` is configured: counters begin at 0 with each restart.",
            (Query(f"min(azure_batch_exporter_state_file_works{{{OF_PROCESS}}} >= 0)"),),
            width=4,
            texts=(("0", "fails", RED), ("1", "saved", GREEN)),
            runbook="AzureBatchStateFileBroken",
        ),
        Figure(
            "Shards missing",
            "Parts of the jobs that no process polls, where jobs are shared by shards.",
            NOT_SCRAPED,
            (
                Query(
                    f"max(azure_batch_exporter_shards{{{OF_PROCESS}}})"
                    f' - count(count_values("shard", azure_batch_exporter_shard{{{OF_PROCESS}}}))'
                ),
            ),
            width=4,
            steps=((None, GREEN), (1, RED)),
        ),
        Figure(
            "Defects",
            "Errors of the exporter that nobody foresaw, in the time shown. Please report them.",
            "None.",
            (
                Query(
                    "sum(increase(azure_batch_exporter_internal_errors_total"
                    f"{{{OF_PROCESS}}}[$__range])) or vector(0)"
                ),
            ),
            decimals=0,
            width=4,
            steps=((None, GREEN), (1, RED)),
            runbook="AzureBatchExporterInternalErrors",
        ),
    ),
)

FRESHNESS = Section(
    "Is the data fresh?",
    (
        Lines(
            "Age of the jobs' data",
            "Age of the oldest value of a job, by account and collector. It rises and falls with"
            " the polling interval.",
            NO_POLL,
            (Query(age("job", "account, collector"), COLLECTORS),),
            unit="s",
            runbook="AzureBatchDataStale",
        ),
        Lines(
            "Age of the accounts' data",
            "Age of the listing of the jobs and of the counts of nodes, by account.",
            NO_POLL,
            (Query(age("account", "account, collector"), COLLECTORS),),
            unit="s",
        ),
        Lines(
            "Polls that fail over time",
            "Jobs of which the last poll failed, by account and collector.",
            NO_POLL,
            (Query(failing("job"), COLLECTORS), Query(failing("account"), COLLECTORS)),
            width=8,
        ),
        Lines(
            "Polls late",
            "How late the latest poll started. Seconds, and they stay: the exporter's CPU does not"
            " suffice.",
            NO_POLL,
            (
                Query(
                    f"max by (account) (azure_batch_exporter_poll_lag_seconds{{{OF_ACCOUNT}}})",
                    "{{account}}",
                ),
            ),
            unit="s",
            width=8,
        ),
        Lines(
            "Polls left out",
            "Turns per second that were left out because the one before was not over: the budget or"
            " the service is too slow for the interval.",
            NO_POLL,
            (Query(rate("azure_batch_exporter_polls_skipped_total", "account"), "{{account}}"),),
            unit="ops",
            width=8,
            runbook="AzureBatchPollsSkipped",
        ),
    ),
)

REQUESTS = Section(
    "Requests to Azure",
    (
        Lines(
            "Requests against the budget",
            "Requests per second to each account, and the budget chosen above. Close to it: polls"
            " come late. Raise `requests_per_second`, or `interval`.",
            NO_POLL,
            (
                Query(rate("azure_batch_exporter_requests_total", "account"), "{{account}}"),
                Query("vector($budget)", "budget"),
            ),
            unit="reqps",
            colors=(("budget", RED),),
        ),
        Lines(
            "Requests by code",
            "Requests per second by status, or timeout, connection or invalid. 401 and 403:"
            " identity or role. 429 and 503: the service asks for a pause.",
            NO_POLL,
            (Query(rate("azure_batch_exporter_requests_total", "code"), "{{code}}"),),
            unit="reqps",
            stacked=True,
            colors=(("200", GREEN), ("429", ORANGE), ("503", ORANGE), ("timeout", RED)),
        ),
        Lines(
            "Requests by operation",
            "Requests per second by operation of the Batch REST API.",
            NO_POLL,
            (Query(rate("azure_batch_exporter_requests_total", "operation"), "{{operation}}"),),
            unit="reqps",
            stacked=True,
        ),
        Lines(
            "Time paused",
            "Share of the time for which the service wanted each account to be left alone (429, or"
            " 503 with Retry-After). Above a few percent: ask less often.",
            NO_POLL,
            (
                Query(
                    rate("azure_batch_exporter_throttled_seconds_total", "account"), "{{account}}"
                ),
            ),
            unit="percentunit",
            runbook="AzureBatchThrottled",
        ),
        Lines(
            "How long requests take",
            "Within which time 95% of the requests ended, by operation.",
            NO_POLL,
            (
                Query(
                    quantile(0.95, "azure_batch_exporter_request_duration_seconds", "operation"),
                    "{{operation}}",
                ),
            ),
            unit="s",
        ),
        Lines(
            "How long polls take",
            "Within which time 95% of the polls ended, by collector; waiting for the budget is part"
            " of it.",
            NO_POLL,
            (
                Query(
                    quantile(0.95, "azure_batch_exporter_poll_duration_seconds", "collector"),
                    "{{collector}}",
                ),
            ),
            unit="s",
        ),
        Lines(
            "Requests repeated",
            "Requests that were repeated because an attempt failed, per second, by operation.",
            "No request had to be repeated.",
            (
                Query(
                    rate("azure_batch_exporter_retries_total", "operation"),
                    "{{operation}}",
                    "throttled",
                ),
            ),
            unit="reqps",
        ),
        Lines(
            "Polls saved",
            "Polls per second that were not needed: of idle jobs, and of what cannot change.",
            NO_POLL,
            (Query(rate("azure_batch_exporter_polls_saved_total", "reason"), "{{reason}}"),),
            unit="ops",
        ),
    ),
)

COST = Section(
    "What it costs",
    (
        Lines(
            "Series",
            "Series that each process shows: what Prometheus has to store.",
            NOT_SCRAPED,
            (
                Query(
                    f"sum by (instance) (azure_batch_exporter_series{{{OF_PROCESS}}})",
                    "{{instance}}",
                ),
            ),
        ),
        Lines(
            "Left out",
            "Jobs beyond `max_jobs`, and series per second beyond `max_series`. Above 0: values are"
            " missing from all dashboards.",
            NO_POLL,
            (
                Query(
                    f"sum by (account) (azure_batch_jobs_dropped{{{OF_ACCOUNT}}})",
                    "{{account}} jobs",
                ),
                Query(
                    rate("azure_batch_exporter_series_dropped_total", "account"),
                    "{{account}} series per second",
                ),
            ),
            runbook="AzureBatchSeriesDropped",
        ),
        Lines(
            "Memory",
            "Resident memory of each process.",
            NOT_SCRAPED,
            (Query(of_exporter(f"process_resident_memory_bytes{{{OF_PROCESS}}}"), "{{instance}}"),),
            unit="bytes",
        ),
        Lines(
            "CPU",
            "CPU of each process; 100 % is one core, and it cannot use more than one.",
            NOT_SCRAPED,
            (
                Query(
                    of_exporter(
                        f"rate(process_cpu_seconds_total{{{OF_PROCESS}}}[$__rate_interval])"
                    ),
                    "{{instance}}",
                ),
            ),
            unit="percentunit",
        ),
        Lines(
            "Corrections",
            "Records per second that a full listing found other than reading by changes had left"
            " them. A few are usual; many: make `resync_interval` shorter, and report it.",
            "No full listing was compared yet.",
            (
                Query(
                    rate("azure_batch_exporter_resync_corrections_total", "account, collector"),
                    "{{account}} {{collector}}",
                ),
            ),
            unit="ops",
        ),
        Rows(
            "Processes",
            "What is running where, and when its configuration was last loaded.",
            NOT_SCRAPED,
            (
                Query(
                    "max by (job, instance, version, revision, python_version)"
                    f" (azure_batch_exporter_build_info{{{OF_PROCESS}}})",
                    "info",
                ),
                Query(
                    f"max by (job, instance) (azure_batch_exporter_shard{{{OF_PROCESS}}})", "shard"
                ),
                Query(
                    f"max by (job, instance) (azure_batch_exporter_shards{{{OF_PROCESS}}})",
                    "shards",
                ),
                Query(
                    "1000 * max by (job, instance)"
                    " (azure_batch_exporter_config_last_reload_success_timestamp_seconds"
                    f"{{{OF_PROCESS}}})",
                    "loaded",
                ),
            ),
            width=12,
            columns=(
                Column("instance", "Instance"),
                Column("version", "Version"),
                Column("revision", "Revision"),
                Column("python_version", "Python"),
                Column("shard", "Shard"),
                Column("shards", "of"),
                Column("loaded", "Configuration of", unit="dateTimeAsLocal"),
            ),
        ),
    ),
)

BOARD = Board(
    EXPORTER_UID,
    "Azure Batch / Exporter",
    "The exporter itself: whether what the other dashboards show is fresh, and what it costs.",
    (JOB, INSTANCE, ACCOUNT, BUDGET),
    (NOW, FRESHNESS, REQUESTS, COST),
)
