"""How Conclave and the application get along: keys, sign-ins that the application decides, the server API, hooks."""

from .grafana import BAD, OK, WARN, dashboard, graph, quantile, quantiles, rate, stat


def signs():
    return [
        stat(
            "Keys last read",
            "The issuer and node that are worst off. A little over auth.jwks_refresh is normal; over auth.jwks_maximum_age nobody of that issuer gets in.",
            "s",
            "max(conclave_jwks_age_seconds{@})",
            "application.md#keys-stale",
            [(120, WARN), (3600, BAD)],
        ),
        stat(
            "Forward circuits open",
            "Nodes that do not ask auth.forward because it kept failing. Their users of this kind are turned away with 1013 meanwhile.",
            "short",
            "sum(conclave_forward_circuit_open{@})",
            "application.md#forward",
            [(1, BAD)],
        ),
        stat(
            "Hook circuits open",
            "Hooks that are left alone, on all nodes. What they decide is denied or allowed as when_down says.",
            "short",
            "sum(conclave_hook_circuit_open{@})",
            "application.md#hook-down",
            [(1, BAD)],
        ),
        stat(
            "Events that wait",
            "For hooks that are told. Not falling: a receiver is down or too slow. Look at Lag.",
            "short",
            "sum(conclave_hook_backlog_events{@})",
            "application.md#hook-backlog",
            [(1000, WARN), (10000, BAD)],
        ),
        stat(
            "Events lost",
            "In the time shown. Each was announced to its hook by a lost record; the application must look for itself.",
            "short",
            "sum(increase(conclave_hook_lost_events_total{@}[$__range]))",
            "application.md#hook-lost",
            [(1, BAD)],
            decimals=0,
        ),
        stat(
            "API errors",
            "Share of the server API's requests that failed for a reason of ours. A caller that retries with its key loses nothing.",
            "percentunit",
            "(sum(rate(conclave_api_requests_total{@, result=~\"unavailable|internal|timeout\"}[@])) or vector(0)) / "
            "clamp_min(sum(rate(conclave_api_requests_total{@}[@])), 0.001)",
            "application.md#api-errors",
            [(0.01, WARN), (0.1, BAD)],
        ),
    ]


def keys():
    return [
        graph(
            "Age of each issuer's keys",
            "A saw tooth up to auth.jwks_refresh is normal. A line that rises is an issuer that cannot be read; sign-ins go on with the keys known until auth.jwks_maximum_age.",
            "s",
            ("max by (issuer) (conclave_jwks_age_seconds{@})", "{{issuer}}"),
            runbook="application.md#keys-stale",
        ),
        graph(
            "Readings that failed",
            "By issuer and result. forbidden: the URL leads to an address that is not allowed; tls: its certificate; bad_set: what came is no key set.",
            "ops",
            (rate("conclave_jwks_fetches_total", "issuer, result", 'result!~"ok|not_modified"'), "{{issuer}} {{result}}"),
            runbook="application.md#keys-stale",
        ),
        graph(
            "Keys per issuer",
            "How many vouch for tokens now; one more while keys are exchanged. 0: nobody of that issuer gets in.",
            "short",
            ("max by (issuer) (conclave_jwks_keys{@})", "{{issuer}}"),
            runbook="application.md#keys-stale",
        ),
        graph(
            "Sign-ins that wait for a key",
            "With a key that is not known yet; they wait for the next reading. For long: an issuer signs with keys that it does not publish, or somebody makes names of keys up.",
            "short",
            ("conclave_jwks_waiting{@}", "{{instance}}"),
            runbook="application.md#keys-stale",
        ),
        graph(
            "Calls made, by purpose",
            "Everything that Conclave calls. All of one purpose gone: look at its row here.",
            "reqps",
            (rate("conclave_outbound_requests_total", "purpose"), "{{purpose}}"),
            runbook="application.md#calls-fail",
        ),
        graph(
            "Calls that came to nothing",
            "By purpose and reason. forbidden: the name leads to an address that is not allowed (outbound.networks); too_large: the answer; timeout: too slow.",
            "reqps",
            (rate("conclave_outbound_requests_total", "purpose, result", 'result!="ok"'), "{{purpose}} {{result}}"),
            runbook="application.md#calls-fail",
        ),
    ]


def sign_ins():
    return [
        graph(
            "Asked of the application",
            "auth.forward: what it said. refused is its own no; anything else but ok means that it could not be asked, and the user was turned away with 1013.",
            "reqps",
            (rate("conclave_forward_requests_total", "result"), "{{result}}"),
            runbook="application.md#forward",
        ),
        graph(
            "Time of its answer",
            "It is added to each sign-in that is not answered from the cache. Near auth.forward's timeout: the application is slow.",
            "s",
            *quantiles("conclave_forward_duration_seconds"),
            runbook="application.md#forward",
        ),
        graph(
            "Answered from the cache",
            "Sign-ins that did not have to ask. None: the cache is off, or everybody comes once.",
            "ops",
            (rate("conclave_forward_cache_hits_total"), "from the cache"),
            runbook="application.md#forward",
        ),
        graph(
            "Forward circuit",
            "1 while a node does not ask. One node only: its network. All: the application.",
            "none",
            ("conclave_forward_circuit_open{@}", "{{instance}}"),
            runbook="application.md#forward",
            top=1,
        ),
        graph(
            "Tickets",
            "issued and redeemed go together. refused: used twice, too late, or made up. unavailable: the backplane was away.",
            "ops",
            (rate("conclave_tickets_total", "result"), "{{result}}"),
            runbook="application.md#tickets",
        ),
        graph(
            "Connections, by how they signed in",
            "Once query is 0 for weeks, nobody needs tokens in addresses any more: tickets, cookies and headers do without.",
            "cps",
            (rate("conclave_admitted_total", "place"), "{{place}}"),
            runbook="application.md#tickets",
        ),
    ]


def api():
    return [
        graph(
            "Requests",
            "By operation. other is a path that does not exist.",
            "reqps",
            (rate("conclave_api_requests_total", "operation"), "{{operation}}"),
            runbook="application.md#api-errors",
        ),
        graph(
            "Requests that did not succeed",
            "By operation and result. Who it was and what it was about is in the audit lines of the log.",
            "reqps",
            (rate("conclave_api_requests_total", "operation, result", 'result!="ok"'), "{{operation}} {{result}}"),
            runbook="application.md#api-errors",
        ),
        graph(
            "Duration, p99",
            "By operation. chat takes as long as the backplane does.",
            "s",
            (quantile(0.99, "conclave_api_duration_seconds", "operation"), "{{operation}}"),
            runbook="application.md#api-errors",
        ),
    ]


def hooks():
    return [
        graph(
            "Requests to hooks",
            "By hook and result; ok and denied are answers. Anything else: the hook was down for it.",
            "reqps",
            (rate("conclave_hook_requests_total", "hook, result"), "{{hook}} {{result}}"),
            runbook="application.md#hook-down",
        ),
        graph(
            "Time of their answers, p99",
            "Of hooks that are asked it is added to what clients do. Near the timeout: the application is slow.",
            "s",
            (quantile(0.99, "conclave_hook_duration_seconds", "hook"), "{{hook}}"),
            runbook="application.md#hook-down",
        ),
        graph(
            "Requests under way",
            "At the hook's in_flight more questions count as unanswered.",
            "short",
            ("sum by (hook) (conclave_hook_waiting{@})", "{{hook}}"),
            runbook="application.md#hook-down",
        ),
        graph(
            "Circuits",
            "1 while a node leaves that hook alone, the worst node.",
            "none",
            ("max by (hook) (conclave_hook_circuit_open{@})", "{{hook}}"),
            runbook="application.md#hook-down",
            top=1,
        ),
        graph(
            "Events delivered",
            "To hooks that are told, as answered with 2xx.",
            "ops",
            (rate("conclave_hook_delivered_events_total", "hook"), "{{hook}}"),
            runbook="application.md#hook-backlog",
        ),
        graph(
            "Tried again",
            "Batches that were not answered with 2xx. They are kept and come again, in order.",
            "ops",
            (rate("conclave_hook_retries_total", "hook"), "{{hook}}"),
            runbook="application.md#hook-backlog",
        ),
        graph(
            "Events that wait",
            "Rising: the receiver is down, or slower than what happens. At queue_events the oldest are lost.",
            "short",
            ("sum by (hook) (conclave_hook_backlog_events{@})", "{{hook}}"),
            runbook="application.md#hook-backlog",
        ),
        graph(
            "Lag",
            "How old the oldest event is that waits: so far behind is the application.",
            "s",
            ("max by (hook) (conclave_hook_lag_seconds{@})", "{{hook}}"),
            runbook="application.md#hook-backlog",
        ),
        graph(
            "Events lost",
            "By hook. Each run of them was announced by a lost record with their count.",
            "ops",
            (rate("conclave_hook_lost_events_total", "hook"), "{{hook}}"),
            runbook="application.md#hook-lost",
        ),
        graph(
            "Messages to users",
            "From the application to users outside of rooms, as queued to their connections.",
            "mps",
            (rate("conclave_user_messages_total"), "messages"),
            runbook="application.md#api-errors",
            width=24,
        ),
    ]


def build():
    return dashboard(
        "conclave-application",
        "Conclave / Application",
        "How Conclave and the application get along: keys, sign-ins that the application decides, the server API, hooks.",
        [
            ("At a glance", signs()),
            ("Keys and calls", keys()),
            ("Sign-ins", sign_ins()),
            ("Server API", api()),
            ("Hooks", hooks()),
        ],
    )
