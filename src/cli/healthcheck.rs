//! `conclave healthcheck`: the question that a container engine asks every few seconds.

use super::args::{Healthcheck, Loudness};
use super::{Environment, Failure, admin};
use crate::config;

/// Succeeds when the node says that it is ready.
pub fn run(args: &Healthcheck, loudness: Loudness, environment: &Environment) -> Result<(), Failure> {
    let sources = environment.sources(args.config.clone());
    let url = match &args.url {
        Some(url) => url.clone(),
        None if sources.file.is_some() => readiness_of(&admin::url(config::load(&sources)?.config.server.admin_listen)),
        None => readiness_of(admin::DEFAULT_URL),
    };
    let answer = ask(&url)?;
    if !loudness.quiet {
        println!("{answer}");
    }
    Ok(())
}

fn readiness_of(admin: &str) -> String {
    format!("{admin}/readyz")
}

fn ask(url: &str) -> Result<String, Failure> {
    if !url.starts_with("http://") {
        return Err(Failure::usage(
            "--url: the admin listener speaks plain HTTP; expected http://ADDRESS:PORT/readyz",
        ));
    }
    let client = admin::client()?;
    let response = client.get(url).send().map_err(|error| unreachable(url, &error))?;
    let status = response.status();
    let body = response.text().unwrap_or_default();
    let body = body.trim();
    if status.is_success() {
        return Ok(if body.is_empty() {
            status.to_string()
        } else {
            body.to_owned()
        });
    }
    Err(Failure::other(format_args!(
        "not ready: {url} answered {status}\n  {}",
        body.replace('\n', "\n  ")
    )))
}

fn unreachable(url: &str, error: &reqwest::Error) -> Failure {
    let why = if error.is_timeout() {
        "no answer within 3 s"
    } else {
        "no connection"
    };
    Failure::other(format_args!(
        "not ready: {url}: {why}\n  help: is the node running, and is this its server.admin_listen? Pass --config FILE or --url URL"
    ))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    fn answer_once(answer: &'static str) -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 1024]).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        format!("http://{address}/readyz")
    }

    #[test]
    fn ready_and_not_ready() {
        let ready = answer_once("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n");
        assert_eq!(ask(&ready).unwrap(), "ok");
        let draining = answer_once("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 9\r\n\r\ndraining\n");
        assert_eq!(ask(&draining).unwrap_err().report(), 1);
        assert_eq!(ask("http://127.0.0.1:1/readyz").unwrap_err().report(), 1);
        assert_eq!(ask("https://127.0.0.1/readyz").unwrap_err().report(), 64);
    }
}
