use std::io::{Read, Write};

use super::*;

fn args() -> Drain {
    Drain {
        config: None,
        url: None,
        token_file: None,
        dry_run: false,
        wait: false,
        json: false,
        clients: None,
        nodes: 1,
        rate: None,
        free: None,
        time: None,
        grace: None,
    }
}

fn nothing() -> Environment {
    Environment::new(Vec::new())
}

/// A node that answers `answers`, one per connection, and is gone then. Its URL, and the first line of each request.
fn node(answers: Vec<String>) -> (String, std::thread::JoinHandle<Vec<String>>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.extend(byte);
            }
            asked.push(String::from_utf8(request).unwrap().to_lowercase());
            stream.write_all(answer.as_bytes()).unwrap();
        }
        asked
    });
    (url, thread)
}

fn answer(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn shown(phase: &str, left: usize) -> String {
    let plan = plan(&outlook(&args(), 10, &nothing()).unwrap());
    let shown = Shown {
        phase: phase.to_owned(),
        left,
        connections: 10,
        plan,
    };
    serde_json::to_string(&shown).unwrap()
}

fn asking(url: &str) -> (Drain, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let token_file = folder.path().join("tokens");
    std::fs::write(&token_file, "# who\n\nann a-token-of-thirty-two-bytes-or-more\n").unwrap();
    let args = Drain {
        url: Some(url.to_owned()),
        token_file: Some(token_file),
        ..args()
    };
    (args, folder)
}

const LOUD: Loudness = Loudness {
    quiet: false,
    verbose: 0,
};

#[test]
fn a_node_is_asked_with_the_token_and_waited_for() {
    let (url, node) = node(vec![
        answer("202 Accepted", &shown("serving", 0)),
        answer("200 OK", &shown("closing", 5)),
    ]);
    let (mut args, _folder) = asking(&url);
    args.wait = true;
    run(&args, LOUD, &nothing()).unwrap();
    let asked = node.join().unwrap();
    assert!(asked[0].starts_with("post /api/drain ") && asked[1].starts_with("get /api/drain "));
    assert!(asked[0].contains("authorization: bearer a-token-of-thirty-two-bytes-or-more"));
    assert!(asked[0].contains("conclave-admin: 1"));
}

#[test]
fn a_dry_run_only_looks() {
    let (url, node) = node(vec![answer("200 OK", &shown("serving", 0))]);
    let (mut args, _folder) = asking(&url);
    args.dry_run = true;
    args.json = true;
    run(&args, LOUD, &nothing()).unwrap();
    assert!(node.join().unwrap()[0].starts_with("get "));
}

#[test]
fn what_goes_wrong_is_explained_and_no_token_is_shown() {
    let problem = r#"{"detail":"this token is unknown","fix":"take another"}"#;
    for (status, body, expected) in [
        ("401 Unauthorized", problem, "this token is unknown"),
        ("404 Not Found", "", "admin.token_file"),
        ("421 Misdirected Request", problem, "take another"),
        ("200 OK", "<html>", "not that of a conclave node"),
    ] {
        let (url, node) = node(vec![answer(status, body)]);
        let (args, _folder) = asking(&url);
        let failure = run(&args, LOUD, &nothing()).unwrap_err();
        let said = format!("{failure:?}");
        assert!(said.contains(expected) && !said.contains("a-token-of"), "{said}");
        assert_eq!(failure.report(), 1);
        node.join().unwrap();
    }
    let (mut gone, _folder) = asking("http://127.0.0.1:1");
    assert_eq!(run(&gone, LOUD, &nothing()).unwrap_err().report(), 1);
    gone.url = Some("https://127.0.0.1:1".to_owned());
    assert_eq!(run(&gone, LOUD, &nothing()).unwrap_err().report(), 64);
    gone.token_file = Some("/nonexistent/tokens".into());
    assert_eq!(run(&gone, LOUD, &nothing()).unwrap_err().report(), 64);
    // Neither a configuration nor a token.
    assert_eq!(run(&args(), LOUD, &nothing()).unwrap_err().report(), 64);
}

#[test]
fn a_prediction_needs_no_node() {
    let asked = Drain {
        clients: Some(3_000),
        nodes: 3,
        rate: Some(200),
        time: Some(Duration::from_secs(20)),
        grace: Some(Duration::ZERO),
        ..args()
    };
    let plan = plan(&outlook(&asked, 3_000, &nothing()).unwrap());
    assert_eq!((plan.others, plan.moving, plan.fits), (2, 3_000, true));
    let said = story(&plan);
    assert!(
        said.contains("3000 clients; 2 other nodes have room for 3000 of them."),
        "{said}"
    );
    assert!(
        said.contains("At most 188 clients come back per second.\nIt fits."),
        "{said}"
    );
    let alone = Drain {
        nodes: 1,
        clients: Some(100_000),
        ..asked
    };
    let said = story(&super::plan(&outlook(&alone, 100_000, &nothing()).unwrap()));
    assert!(
        said.contains("no other node") && said.contains("It does not fit"),
        "{said}"
    );
}
