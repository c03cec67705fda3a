"""What the exporter's own dashboard asks, and its variables."""

from __future__ import annotations

from tools.dashboards.building import Variable

OF_PROCESS = 'job=~"$job",instance=~"$instance"'
OF_ACCOUNT = f'{OF_PROCESS},account=~"$account"'

NOT_SCRAPED = "Prometheus scrapes no exporter: see its page Targets."
COLLECTORS = "{{account}} {{collector}}"

NO_POLL = "No account was polled yet."

JOB = Variable(
    "job",
    "Scrape job",
    "What the exporter is called in Prometheus' scrape configuration; no job of Azure Batch.",
    query="label_values(azure_batch_exporter_build_info, job)",
    everything=".+",
)
INSTANCE = Variable(
    "instance",
    "Instance",
    "Processes of the exporter; several where jobs are shared by shards.",
    query='label_values(azure_batch_exporter_build_info{job=~"$job"}, instance)',
    everything=".+",
)
ACCOUNT = Variable(
    "account",
    "Account",
    "Batch accounts, as the exporter's configuration names them.",
    query=f"label_values(azure_batch_up{{{OF_PROCESS}}}, account)",
    everything=".+",
)
BUDGET = Variable(
    "budget",
    "Budget",
    "`requests_per_second` of an account in the exporter's configuration; drawn as a line.",
    choices=("20", "10", "50", "100", "200", "500"),
)


def rate(counter: str, by: str) -> str:
    """Events per second."""
    return f"sum by ({by}) (rate({counter}{{{OF_ACCOUNT}}}[$__rate_interval]))"


def quantile(share: float, histogram: str, by: str) -> str:
    """Within which time this share of what a histogram counts ended."""
    buckets = rate(f"{histogram}_bucket", f"le, {by}")
    return f"histogram_quantile({share}, {buckets})"


def age(of: str, by: str = "") -> str:
    """Seconds since the polls of jobs or of the account last succeeded, of the oldest."""
    metric = f"azure_batch_{of}_last_scrape_success_timestamp_seconds{{{OF_ACCOUNT}}}"
    return f"time() - min by ({by}) ({metric})" if by else f"time() - min({metric})"


def failing(of: str) -> str:
    """Of how many jobs or accounts the last poll failed."""
    metric = f"azure_batch_{of}_scrape_success{{{OF_ACCOUNT}}}"
    return f"sum by (account, collector) ({metric} == bool 0)"


def of_exporter(expression: str) -> str:
    """What Python tells of its process, of ours only."""
    ours = f"azure_batch_exporter_build_info{{{OF_PROCESS}}}"
    return f"sum by (instance) ({expression} and on (job, instance) {ours})"
