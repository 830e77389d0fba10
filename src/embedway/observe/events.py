"""Makes events of what happens, and counts and logs it.

Webhooks receive events through the outbox, in the transaction of the change where there is one, or
else through the deliverer. Only this module says what an event contains.
"""

import socket
from collections.abc import Callable
from functools import partial

import msgspec
import structlog
from sqlalchemy import Connection

from embedway.budgets.alerts import BudgetAlert
from embedway.catalog.deployment import Deployment
from embedway.core.budget import budget_window
from embedway.core.clock import now_ms
from embedway.core.money import format_usd
from embedway.core.redaction import redact
from embedway.events.event import Event
from embedway.events.outbox import Outbox
from embedway.observe.metrics import Metrics
from embedway.observe.tracing import Tracer
from embedway.sending.outcome import CallEvents, Failure, Outcome, Success
from embedway.spaces.membership import Membership
from embedway.spaces.proof import Proof

Publish = Callable[[Event], None]
"""Hands an event to the deliverer."""

_log = structlog.get_logger("embedway.events")


def report_limits_sharing(publish: Publish, reason: str | None) -> None:
    """Report that replicas count rate limits together, or the `reason` why each counts alone."""
    if reason is None:
        _log.info("limits are counted together")
        text = "Redis answers again: replicas count rate limits together."
    else:
        _log.warning("Redis is away: limits are shared out", reason=reason)
        text = f"Redis is away ({reason}): each replica lets in its share of every rate limit."
    publish(
        Event(
            type="redis.unavailable" if reason else "redis.available",
            at_ms=now_ms(),
            subject="redis",
            text=text,
            data={"reason": reason},
        )
    )


def report_outage(publish: Publish, reason: str | None) -> None:
    """Report that the database cannot be used from here for this `reason`, or again can."""
    replica = socket.gethostname()
    state = f"is unavailable ({reason})" if reason else "is available again"
    publish(
        Event(
            type="database.unavailable" if reason else "database.available",
            at_ms=now_ms(),
            subject="database",
            text=f"The database {state} for the gateway on {replica}.",
            data={"replica": replica, "reason": reason},
        )
    )


def log_budget_alert(metrics: Metrics, alert: BudgetAlert) -> None:
    """Count and log that spending reached an alert of a budget, or that it is exhausted."""
    subject = alert.subject
    percent = {} if alert.is_exhausted else {"percent": alert.percent}
    if percent:
        metrics.budget_alerts.labels(subject.kind, str(alert.percent)).inc()
    _log.warning(
        "budget alert" if percent else "budget exhausted",
        of=subject.kind,
        # Someone may have sent a key as an end user's id.
        id=redact(subject.id),
        project=subject.project_id,
        **percent,
        spent_usd=format_usd(alert.spent_nano_usd),
        budget=str(alert.budget),
    )


def write_budget_alert(outbox: Outbox, connection: Connection, alert: BudgetAlert) -> None:
    """Add the event of a budget alert to the transaction that records the alert."""
    subject, budget, spent = alert.subject, alert.budget, alert.spent_nano_usd
    id = redact(subject.id)
    spending = f"{format_usd(spent)} USD of {budget} are spent"
    if alert.is_exhausted:
        text = f"The budget of {subject.kind} {id} refuses requests: {spending}."
    else:
        text = f"The budget of {subject.kind} {id} has reached {alert.percent} %: {spending}."
    starts_ms, ends_ms = budget_window(budget.per, alert.at_ms)
    outbox.add(
        connection,
        Event(
            type="budget.exhausted" if alert.is_exhausted else "budget.alert",
            at_ms=outbox.now_ms(),
            subject=f"{subject.kind}/{subject.project_id}/{id}",
            text=text,
            data={
                "of": subject.kind,
                "id": id,
                "project_id": subject.project_id,
                "per": budget.per,
                "amount_usd": float(format_usd(budget.amount_nano_usd)),
                "spent_usd": float(format_usd(spent)),
                **({} if alert.is_exhausted else {"percent": alert.percent}),
                "period_starts_at": None if budget.per == "total" else starts_ms // 1000,
                "resets_at": ends_ms and ends_ms // 1000,
            },
        ),
    )


def report_ejection(
    metrics: Metrics, publish: Publish, deployment: Deployment, seconds: float
) -> None:
    """Report that a deployment gets no requests for `seconds`."""
    metrics.ejections.labels(deployment.label).inc()
    _log.warning("deployment ejected", deployment=deployment.id, seconds=round(seconds, 1))
    publish(
        _deployment_event(
            "deployment.ejected", deployment, "gets no requests for now, because calls to it failed"
        )
    )


def report_recovery(publish: Publish, deployment: Deployment) -> None:
    """Report that a deployment that was ejected answers again."""
    _log.info("deployment recovered", deployment=deployment.id)
    publish(_deployment_event("deployment.recovered", deployment, "answers again"))


def _deployment_event(type: str, deployment: Deployment, state: str) -> Event:
    # Clients choose the names of undeclared models, so that these share a label.
    return Event(
        type=type,
        at_ms=now_ms(),
        subject=deployment.label,
        text=f"{deployment.label} {state}.",
        data={"deployment": deployment.label},
    )


_SPACE_TEXTS = {
    "drifted": "{} is quarantined: its vectors are no longer those that were proven ({}).",
    "differs": "{} is in a space of its own: its vectors differ from the model's ({}).",
    "released": "{} is released from quarantine.",
}


def write_space_change(
    outbox: Outbox, connection: Connection, before: Proof | None, after: Proof
) -> None:
    """Add the event of a changed proof, if it is one, to the transaction that stores the proof."""
    was = before and before.state
    if was == after.state:
        return
    if after.state in {"drifted", "differs"} and was != "drifted":
        change = after.state
    elif was == "drifted":
        change = "released"
    else:
        return
    outbox.add(
        connection,
        Event(
            type=f"space.{change}",
            at_ms=outbox.now_ms(),
            subject=after.deployment,
            text=_SPACE_TEXTS[change].format(after.deployment, after.reason),
            data={
                "deployment": after.deployment,
                "input_type": after.input_type,
                "revision": after.revision,
                "lowest_cosine": after.cosine,
                "reason": after.reason,
            },
        ),
    )


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
