"""Certificates, tokens, and who uses the operator's page."""

from .grafana import BAD, OK, WARN, dashboard, graph, quantile, rate, stat

DAYS = [(3, WARN), (14, OK)]


def certificates():
    return [
        stat(
            "Days left, first to expire",
            "Of the certificates that the nodes serve. Under 14 renewal has failed.",
            "d",
            "min((conclave_tls_certificate_expiry_timestamp_seconds{@} > 0) - time()) / 86400",
            "service.md#certificate-expiry",
            DAYS,
            BAD,
            width=6,
            height=8,
            decimals=0,
        ),
        stat(
            "Days left, as probes see it",
            "What clients are shown, a proxy's certificate included. Fewer than beside it: something in front serves an old one.",
            "d",
            "min(conclave_probe_certificate_expiry_timestamp_seconds{@} - time()) / 86400",
            "service.md#certificate-expiry",
            DAYS,
            BAD,
            width=6,
            height=8,
            decimals=0,
        ),
        graph(
            "Days left by node",
            "Nodes must agree after a renewal. One that lags behind did not load the new files.",
            "d",
            ("((conclave_tls_certificate_expiry_timestamp_seconds{@} > 0) - time()) / 86400", "{{instance}}"),
            runbook="service.md#certificate-expiry",
            width=12,
        ),
        graph(
            "Certificate loaded again",
            "failed: the new files are broken or do not match; the old certificate stays until that is put right. The log says which file.",
            "ops",
            (rate("conclave_tls_reloads_total", "result"), "{{result}}"),
            runbook="service.md#certificate-reload",
        ),
        graph(
            "ACME orders",
            "Certificates asked for automatically. A failed one is tried again; failing for days means that port 443 or the name is not ours.",
            "ops",
            (rate("conclave_acme_orders_total", "result"), "{{result}}"),
            runbook="service.md#acme",
        ),
        graph(
            "Client certificates",
            "Only with tls.client_auth. Refused ones are clients with an old certificate, or of another authority.",
            "ops",
            (rate("conclave_client_certificates_total", "result"), "{{result}}"),
            runbook="service.md#client-certificates",
        ),
        graph(
            "TLS handshake, p99 by node",
            "A node that stands out is busy, or far from its clients.",
            "s",
            (quantile(0.99, "conclave_tls_handshake_duration_seconds", "instance"), "{{instance}}"),
            runbook="service.md#cpu-saturated",
            width=12,
        ),
        graph(
            "Handshakes that failed",
            "tls_error at all clients after a renewal: the chain is incomplete or the name is wrong. not_tls: scanners, or a balancer that ends TLS.",
            "cps",
            (rate("conclave_handshakes_total", "result", 'result!="ok"'), "{{result}}"),
            runbook="service.md#handshakes-dropped",
            width=12,
        ),
    ]


def tokens():
    return [
        stat(
            "Tokens refused",
            "Share of the sign-ins that came with a bad token. A few percent are expired ones; more after a release of the application: its tokens changed.",
            "percentunit",
            "sum(rate(conclave_auth_failures_total{@}[@])) / "
            "clamp_min(sum(rate(conclave_auth_failures_total{@}[@])) + sum(rate(conclave_admitted_total{@}[@])), 0.001)",
            "service.md#tokens-refused",
            [(0.1, WARN), (0.5, BAD)],
            width=8,
            height=8,
        ),
        graph(
            "Refused, by reason",
            "token_signature: keys do not match; token_expired: clients keep tokens, or clocks differ; token_missing: the page does not send one.",
            "ops",
            (rate("conclave_auth_failures_total", "reason"), "{{reason}}"),
            runbook="service.md#tokens-refused",
        ),
        graph(
            "Accepted, by where they were found",
            "Tokens in the query can end up in a proxy's log: prefer cookies or headers.",
            "ops",
            (rate("conclave_admitted_total", "place"), "{{place}}"),
            runbook="service.md#tokens-refused",
        ),
        graph(
            "Foreign pages and throttled addresses",
            "foreign_origin: a page that is not on origin.allow (yours? add it). throttled: an address that guesses tokens.",
            "ops",
            (rate("conclave_upgrades_total", "result", 'result=~"foreign_origin|throttled"'), "{{result}}"),
            runbook="service.md#tokens-refused",
            width=12,
        ),
        graph(
            "Guesses held back",
            "refusals_per_second and sign_ins_per_minute. A steady rate is somebody who tries.",
            "ops",
            (rate("conclave_rate_limited_total", "limit", 'limit=~"refusals_per_second|sign_ins_per_minute"'), "{{limit}}"),
            runbook="service.md#tokens-refused",
            width=12,
        ),
    ]


def operators():
    return [
        graph(
            "Requests to the admin listener",
            "By action and result. denied: somebody without the token; look at the audit lines of the log for who.",
            "ops",
            (rate("conclave_admin_requests_total", "action, result"), "{{action}} {{result}}"),
            runbook="service.md#admin-access",
            width=12,
        ),
        graph(
            "Live taps",
            "Rooms or users that somebody looks at right now. Not yours: the audit lines of the log say whose.",
            "short",
            ("conclave_taps{@}", "{{instance}}"),
            runbook="service.md#admin-access",
            width=12,
        ),
    ]


def build():
    return dashboard(
        "conclave-tls-auth",
        "Conclave / TLS and auth",
        "Certificates and their renewal, tokens, the admin listener.",
        [("Certificates", certificates()), ("Tokens", tokens()), ("Operators", operators())],
    )
