//! From settings to the typed `Config`. Every value is in range by now; what is missing keeps its place with
//! something harmless, so that the checks can go on and all problems are told at once.

mod hooks;
mod keys;

use secrecy::ExposeSecret;

use super::api::api;
use super::check;
use super::problem::Problem;
use super::read::Read;
use super::schema::ROOMS;
use super::settings::Settings;
use super::{
    Acme, Admin, Auth, Backplane, BackplaneKind, ClientAuth, Config, Drain, Echo, Forward, Heartbeat, History, Kept,
    Limits, Log, LogFormat, OnStale, Origin, Outbound, Room, RoomClass, RuntimeKind, Server, Session, Tickets, Tls,
    TlsMode, Traces, Who,
};
use crate::backplane::url::BackplaneUrl;

const NETWORKS: &str = "outbound.networks";
const TOKEN_FILE: &str = "admin.token_file";
const SENTINEL_PASSWORD_FILE: &str = "backplane.sentinel_password_file";

/// Builds the configuration, reading the files that hold secrets of our own.
pub fn assemble(settings: &mut Settings, problems: &mut Vec<Problem>) -> Config {
    let secret = one_of(settings, ["session.secret", "session.secret_file"], problems);
    let headers = one_of(settings, ["traces.headers", "traces.headers_file"], problems);
    let url = one_of(settings, ["backplane.url", "backplane.url_file"], problems);
    let keys = keys::keys(settings, problems);
    let api = api(settings, problems);
    let rooms = rooms(settings, problems);
    let hooks = hooks::assemble(settings, problems);
    let read = Read(settings);
    Config {
        server: server(&read, problems),
        tls: Tls {
            mode: if read.text("tls.mode") == "off" {
                TlsMode::Off
            } else {
                TlsMode::On
            },
            certificate: read.path("tls.certificate"),
            key: read.path("tls.key"),
            reload_poll: read.duration("tls.reload_poll"),
            client_auth: match read.text("tls.client_auth").as_str() {
                "optional" => ClientAuth::Optional,
                "required" => ClientAuth::Required,
                _ => ClientAuth::Off,
            },
            client_ca_file: read.optional("tls.client_ca_file").map(Into::into),
            client_crl_file: read.optional("tls.client_crl_file").map(Into::into),
        },
        acme: Acme {
            domains: (read.list("acme.domains").iter())
                .map(|domain| domain.to_ascii_lowercase())
                .collect(),
            contact: read.list("acme.contact"),
            directory: read.text("acme.directory"),
            cache_dir: read.path("acme.cache_dir"),
            ca_file: read.optional("acme.ca_file").map(Into::into),
            retry: read.duration("acme.retry"),
        },
        origin: Origin {
            allow: read.list("origin.allow"),
        },
        auth: auth(&read, keys),
        tickets: tickets(&read),
        session: Session {
            enabled: read.flag("session.enabled"),
            secret: secret.and_then(|key| read.secret(&key, problems)),
            ttl: read.duration("session.ttl"),
            per_minute: read.number("session.per_minute"),
        },
        outbound: outbound(&read, problems),
        heartbeat: Heartbeat {
            interval: read.duration("heartbeat.interval"),
        },
        limits: limits(&read),
        history: History {
            messages: read.number("history.messages"),
            age: read.duration("history.age"),
            bytes: read.size("history.bytes"),
            node_bytes: read.size("history.node_bytes"),
        },
        room: Room {
            users_shown: read.number("room.users_shown"),
            key_window: read.duration("room.key_window"),
            flush_window: read.duration("room.flush_window"),
        },
        rooms,
        backplane: backplane(&read, url, problems),
        echo: Echo {
            enabled: read.flag("echo.enabled"),
            message_bytes: read.size("echo.message_bytes"),
            fragments: read.number("echo.fragments"),
        },
        admin: admin(&read, problems),
        api,
        hooks,
        drain: Drain {
            grace: read.duration("drain.grace"),
            time: read.duration("drain.time"),
        },
        log: Log {
            format: if read.text("log.format") == "human" {
                LogFormat::Human
            } else {
                LogFormat::Json
            },
            level: read.text("log.level"),
        },
        traces: Traces {
            endpoint: read.optional("traces.endpoint"),
            sample_ratio: read.float("traces.sample_ratio"),
            headers: headers.map_or_else(Vec::new, |key| read.headers(&key, problems)),
        },
    }
}

fn server(read: &Read, problems: &mut Vec<Problem>) -> Server {
    Server {
        name: read.text("server.name"),
        listen: read.listen("server.listen"),
        listen_mode: read.mode("server.listen_mode", problems),
        admin_listen: read.address("server.admin_listen"),
        proxy_from: read.networks("server.proxy_from", problems),
        forwarded_from: read.networks("server.forwarded_from", problems),
        runtime: if read.text("server.runtime") == "shared" {
            RuntimeKind::Shared
        } else {
            RuntimeKind::PerCore
        },
        threads: read.number("server.threads"),
        page: read.flag("server.page"),
        handshake_timeout: read.duration("server.handshake_timeout"),
        header_timeout: read.duration("server.header_timeout"),
        header_bytes: read.size("server.header_bytes"),
        http_idle: read.duration("server.http_idle"),
    }
}

fn outbound(read: &Read, problems: &mut Vec<Problem>) -> Outbound {
    let networks = read.networks(NETWORKS, problems);
    if networks.unix {
        let what = "\"unix\" is not a network that can be called";
        problems.push(Problem::error(NETWORKS, what, "leave it out"));
    }
    Outbound {
        networks: networks.networks,
    }
}

fn auth(read: &Read, keys: Vec<super::Key>) -> Auth {
    Auth {
        keys,
        cookie: read.text("auth.cookie"),
        leeway: read.duration("auth.leeway"),
        require_expiry: read.flag("auth.require_expiry"),
        refusals_per_second: read.number("auth.refusals_per_second"),
        refusals_burst: read.number("auth.refusals_burst"),
        jwks_waiting: read.number("auth.jwks_waiting"),
        jwks_kids_per_address: read.number("auth.jwks_kids_per_address"),
        query_token: read.flag("auth.query_token"),
        forward: forward(read),
    }
}

fn tickets(read: &Read) -> Tickets {
    Tickets {
        enabled: read.flag("tickets.enabled"),
        lifetime: read.duration("tickets.lifetime"),
        per_minute: read.number("tickets.per_minute"),
        address_per_minute: read.number("tickets.address_per_minute"),
        outstanding: read.number("tickets.outstanding"),
    }
}

fn forward(read: &Read) -> Forward {
    Forward {
        url: read.optional("auth.forward.url"),
        ca_file: read.optional("auth.forward.ca_file").map(Into::into),
        cookies: read.list("auth.forward.cookies"),
        headers: read.list("auth.forward.headers"),
        timeout: read.duration("auth.forward.timeout"),
        cache: read.duration("auth.forward.cache"),
        cache_entries: read.number("auth.forward.cache_entries"),
        in_flight: read.number("auth.forward.in_flight"),
        failures: read.number("auth.forward.failures"),
        pause: read.duration("auth.forward.pause"),
        lifetime_max: read.duration("auth.forward.lifetime_max"),
        user_prefix: read.text("auth.forward.user_prefix"),
    }
}

fn admin(read: &Read, problems: &mut Vec<Problem>) -> Admin {
    let is_set = read.optional(TOKEN_FILE).is_some();
    let text = is_set.then(|| read.secret(TOKEN_FILE, problems)).flatten();
    let lower = |host: String| host.to_ascii_lowercase();
    Admin {
        tokens: text.map_or_else(Vec::new, |text| check::admin::tokens(TOKEN_FILE, &text, problems)),
        hosts: read.list("admin.hosts").into_iter().map(lower).collect(),
        session_ttl: read.duration("admin.session_ttl"),
        taps: read.number("admin.taps"),
        tap_lines_per_second: read.number("admin.tap_lines_per_second"),
        tap_time: read.duration("admin.tap_time"),
        tap_content: read.flag("admin.tap_content"),
    }
}

/// `url` is the key that holds it.
fn backplane(read: &Read, url: Option<String>, problems: &mut Vec<Problem>) -> Backplane {
    let kind = match read.text("backplane.kind").as_str() {
        "redis" => BackplaneKind::Redis,
        "nats" => BackplaneKind::Nats,
        _ => BackplaneKind::Memory,
    };
    let kept = match (kind, read.text("backplane.kept").as_str()) {
        (BackplaneKind::Memory, _) => Kept::Memory,
        (_, "disk") => Kept::Disk,
        (_, "replica") => Kept::Replica,
        _ => Kept::Async,
    };
    let on_stale = match read.text("backplane.on_stale").as_str() {
        "pass" => OnStale::Pass,
        _ => OnStale::Refuse,
    };
    let is_set = |key: &str| read.optional(key).is_some();
    let sentinel_password = is_set(SENTINEL_PASSWORD_FILE)
        .then(|| read.secret(SENTINEL_PASSWORD_FILE, problems))
        .flatten();
    Backplane {
        kind,
        url: url
            .and_then(|key| backplane_url(read, &key, problems))
            .unwrap_or_else(|| BackplaneUrl::local(kind == BackplaneKind::Nats)),
        kept,
        prefix: read.text("backplane.prefix"),
        replicas: read.number("backplane.replicas"),
        wait_timeout: read.duration("backplane.wait_timeout"),
        ca_file: read.optional("backplane.ca_file").map(Into::into),
        sentinel_password,
        connect_timeout: read.duration("backplane.connect_timeout"),
        call_timeout: read.duration("backplane.call_timeout"),
        publish_timeout: read.duration("backplane.publish_timeout"),
        leave_grace: read.duration("backplane.leave_grace"),
        audit_interval: read.duration("backplane.audit_interval"),
        lease: read.duration("backplane.lease"),
        max_staleness: read.duration("backplane.max_staleness"),
        on_stale,
        unready_when_away: read.flag("backplane.unready_when_away"),
        room_queue_messages: read.number("backplane.room_queue_messages"),
        room_queue_bytes: read.size("backplane.room_queue_bytes"),
        node_queue_bytes: read.size("backplane.node_queue_bytes"),
    }
}

/// The URL is not quoted: it may hold a password, wherever a slip has put it.
fn backplane_url(read: &Read, key: &str, problems: &mut Vec<Problem>) -> Option<BackplaneUrl> {
    let text = read.secret(key, problems)?;
    match BackplaneUrl::parse(text.expose_secret()) {
        Ok(url) => Some(url),
        Err(error) => {
            problems.push(Problem::error(key, error.to_string(), error.remedy()));
            None
        }
    }
}

fn limits(read: &Read) -> Limits {
    Limits {
        connections: read.number("limits.connections"),
        connections_per_address: read.number("limits.connections_per_address"),
        connections_per_user: read.number("limits.connections_per_user"),
        handshakes_in_flight: read.number("limits.handshakes_in_flight"),
        handshake_cpu_share: read.float("limits.handshake_cpu_share"),
        handshake_wait: read.duration("limits.handshake_wait"),
        handshakes_per_address_per_second: read.number("limits.handshakes_per_address_per_second"),
        returning_share: read.float("limits.returning_share"),
        turn_aways: read.number("limits.turn_aways"),
        admissions_waiting: read.number("limits.admissions_waiting"),
        admission_time: read.duration("limits.admission_time"),
        message_bytes: read.size("limits.message_bytes"),
        fragments: read.number("limits.fragments"),
        messages_per_second: read.number("limits.messages_per_second"),
        messages_burst: read.number("limits.messages_burst"),
        bytes_per_second: read.size("limits.bytes_per_second") as u64,
        user_messages_per_second: read.number("limits.user_messages_per_second"),
        address_messages_per_second: read.number("limits.address_messages_per_second"),
        user_bytes_per_second: read.size("limits.user_bytes_per_second") as u64,
        address_bytes_per_second: read.size("limits.address_bytes_per_second") as u64,
        room_messages_per_second: read.number("limits.room_messages_per_second"),
        room_bytes_per_second: read.size("limits.room_bytes_per_second") as u64,
        node_messages_per_second: read.number("limits.node_messages_per_second"),
        node_bytes_per_second: read.size("limits.node_bytes_per_second") as u64,
        calls_per_connection: read.number("limits.calls_per_connection"),
        rooms_per_connection: read.number("limits.rooms_per_connection"),
        room_members: read.number("limits.room_members"),
        rooms: read.number("limits.rooms"),
        outbox_bytes: read.size("limits.outbox_bytes"),
        outbox_frames: read.number("limits.outbox_frames"),
        outbox_age: read.duration("limits.outbox_age"),
        node_outbox_bytes: read.size("limits.node_outbox_bytes"),
        node_inbound_bytes: read.size("limits.node_inbound_bytes"),
        send_buffer: read.size("limits.send_buffer"),
        unsent_low_water: read.size("limits.unsent_low_water"),
    }
}

fn rooms(settings: &Settings, problems: &mut Vec<Problem>) -> Vec<RoomClass> {
    let indexes = entries_of(settings, ROOMS, problems);
    let read = Read(settings);
    indexes.into_iter().map(|index| room_class(&read, index)).collect()
}

fn room_class(read: &Read, index: usize) -> RoomClass {
    let entry = format!("{ROOMS}[{index}]");
    let key = |name: &str| format!("{entry}.{name}");
    let who = |name: &str| match read.text(&key(name)).as_str() {
        "granted" => Who::Granted,
        "none" => Who::None,
        _ => Who::All,
    };
    // What is not set has no value, of whatever kind.
    let is_set = |name: &str| read.0.value(&key(name)).is_some();
    let number = |name: &str| is_set(name).then(|| read.number(&key(name)));
    let size = |name: &str| is_set(name).then(|| read.size(&key(name)));
    let duration = |name: &str| is_set(name).then(|| read.duration(&key(name)));
    RoomClass {
        pattern: read.text(&key("pattern")),
        join: who("join"),
        chat: who("chat"),
        list: who("list"),
        history: who("history"),
        guests: read.flag(&key("guests")),
        history_messages: number("history_messages"),
        history_age: duration("history_age"),
        history_bytes: size("history_bytes"),
        key_window: duration("key_window"),
        flush_window: duration("flush_window"),
        users_shown: number("users_shown"),
        members: number("members"),
        messages_per_second: is_set("messages_per_second").then(|| read.number(&key("messages_per_second"))),
        bytes_per_second: size("bytes_per_second").map(|bytes| bytes as u64),
        set_in: read.0.at(&entry).map_or_else(String::new, |at| at.short()),
    }
}

/// Which of two keys that exclude each other holds the value.
fn one_of(settings: &mut Settings, pair: [&str; 2], problems: &mut Vec<Problem>) -> Option<String> {
    let kept = settings.keep_highest(&pair.map(str::to_owned));
    if kept.len() > 1 {
        let what = format!("{} and {} are both set", pair[0], pair[1]);
        problems.push(Problem::error(pair[0], what, "keep one of them; the file is safer"));
    }
    kept.into_iter().next()
}

/// The numbers of the entries of an array.
pub(super) fn entries_of(settings: &Settings, array: &str, problems: &mut Vec<Problem>) -> Vec<usize> {
    let indexes = settings.entries_of(array);
    if let Some((expected, found)) = indexes.iter().enumerate().find(|(expected, found)| expected != *found) {
        problems.push(Problem::error(
            format!("{array}[{found}]"),
            format!("there is no entry {expected} before it"),
            "entries are numbered from 0, without gaps",
        ));
    }
    indexes
}
