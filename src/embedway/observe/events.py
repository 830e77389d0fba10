"""Counts and logs events: calls to providers, ejections, budget alerts and changes of spaces."""

from functools import partial

import msgspec
import structlog

from embedway.catalog.deployment import Deployment
from embedway.core.budget import Budget
from embedway.core.money import NanoUsd, format_usd
from embedway.core.redaction import redact
from embedway.core.subject import Subject
from embedway.observe.metrics import Metrics
from embedway.observe.tracing import Tracer
from embedway.sending.outcome import CallEvents, Failure, Outcome, Success
from embedway.spaces.membership import Membership

_log = structlog.get_logger("embedway.events")


def log_limits_sharing(reason: str | None) -> None:
    """Log that replicas count rate limits together, or the `reason` why each counts alone."""
    if reason is None:
        _log.info("limits are counted together")
    else:
        _log.warning("Redis is away: limits are shared out", reason=reason)


def log_budget_alert(
    metrics: Metrics, subject: Subject, budget: Budget, percent: int, spent: NanoUsd
) -> None:
    """Count and log that spending reached an alert of a budget."""
    metrics.budget_alerts.labels(subject.kind, str(percent)).inc()
    _log.warning(
        "budget alert",
        of=subject.kind,
        # Someone may have sent a key as an end user's id.
        id=redact(subject.id),
        project=subject.project_id,
        percent=percent,
        spent_usd=format_usd(spent),
        budget=str(budget),
    )


def log_ejection(metrics: Metrics, deployment: Deployment, seconds: float) -> None:
    """Count and log that a deployment gets no requests for `seconds`."""
    metrics.ejections.labels(deployment.label).inc()
    _log.warning("deployment ejected", deployment=deployment.id, seconds=round(seconds, 1))


def log_space_event(
    metrics: Metrics, event: str, deployment: Deployment, member: Membership
) -> None:
    """Count and log what a probe found out about a deployment's vectors."""
    metrics.space_events.labels(deployment.id, event).inc()
    log = {"drifted": _log.error, "differs": _log.warning}.get(event, _log.info)
    log(
        f"deployment {event}",
        deployment=deployment.id,
        space=str(deployment.space(revision=member.revision)),
        reason=member.reason,
    )


def observe_calls(metrics: Metrics, tracer: Tracer | None) -> CallEvents:
    """Return the observers that count, log and trace calls."""
    log = partial(log_call, metrics)
    events = CallEvents(
        on_outcome=log,
        on_overcount=partial(log_overcount, metrics),
        on_unreadable_usage=partial(log_unreadable_usage, metrics),
    )
    if tracer is None:
        return events

    def log_and_trace(*call: *tuple[str, Deployment, Outcome, float]) -> None:
        log(*call)
        tracer.end_call(*call)

    return msgspec.structs.replace(events, on_start=tracer.start_call, on_outcome=log_and_trace)


def log_call(
    metrics: Metrics, request_id: str, deployment: Deployment, outcome: Outcome, seconds: float
) -> None:
    """Count a call to a provider, and log it if it failed."""
    if isinstance(outcome, Success):
        metrics.count_call(deployment.provider, seconds, "ok")
    elif isinstance(outcome, Failure):
        error = outcome.error
        metrics.count_call(deployment.provider, seconds, error.kind)
        # The reason is not logged, because it may repeat the input.
        _log.warning(
            "provider failed",
            request_id=request_id,
            deployment=deployment.label,
            kind=error.kind,
            status=error.status,
            billed=error.billed,
            retry_after_s=error.retry_after_s,
            cause=error.__cause__ and type(error.__cause__).__name__,
        )


def log_overcount(
    metrics: Metrics, request_id: str, deployment: Deployment, reported: int, billed: int
) -> None:
    """Count and log a reply that reports more tokens than its input can have."""
    metrics.overcounts.labels(deployment.label).inc()
    _log.warning(
        "provider overcounted",
        request_id=request_id,
        deployment=deployment.label,
        reported_tokens=reported,
        billed_tokens_at_most=billed,
    )


def log_unreadable_usage(metrics: Metrics, request_id: str, deployment: Deployment) -> None:
    """Count and log a reply whose token count is not a whole number."""
    metrics.unreadable_usages.labels(deployment.label).inc()
    _log.warning("provider usage unreadable", request_id=request_id, deployment=deployment.label)
