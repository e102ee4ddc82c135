//! `conclave check-config`: what `serve` would say about a configuration, without serving.

use serde_json::{Value, json};

use crate::config::{At, Config, Effective, Loaded, Problem, Problems, Sources, effective_table, load_with};

/// Exit code for a configuration that `serve` would refuse (`EX_USAGE` of sysexits.h).
pub const EXIT_BAD_CONFIG: u8 = 64;

/// Checks what `sources` say and prints the answer: problems on stderr, everything else on stdout. With
/// `print` every effective value and where it came from, with `json` one object. Returns the exit code.
pub fn run(sources: &Sources, print: bool, json: bool) -> u8 {
    run_with(sources, print, json, |_| Vec::new())
}

/// As [`run`], with the checks of other parts that `serve` makes.
pub fn run_with(sources: &Sources, print: bool, json: bool, extra: impl FnOnce(&Config) -> Vec<Problem>) -> u8 {
    let result = load_with(sources, extra);
    let code = if result.is_ok() { 0 } else { EXIT_BAD_CONFIG };
    if json {
        println!("{}", to_json(&result, print));
        return code;
    }
    match result {
        Ok(loaded) => print!("{}", success(&loaded, print)),
        Err(problems) => eprint!("{}", failure(&problems)),
    }
    code
}

fn success(loaded: &Loaded, print: bool) -> String {
    let mut text = String::new();
    if print {
        text.push_str(&format!("{}\n", effective_table(&loaded.effective)));
    }
    if !loaded.warnings.is_empty() {
        text.push_str(&format!("{}\n\n", Problems(loaded.warnings.clone())));
    }
    match loaded.warnings.len() {
        0 => text.push_str("ok\n"),
        1 => text.push_str("ok, with 1 warning\n"),
        many => text.push_str(&format!("ok, with {many} warnings\n")),
    }
    text
}

fn failure(problems: &Problems) -> String {
    let warnings = match problems.0.len() - problems.errors() {
        0 => String::new(),
        1 => ", 1 warning".to_owned(),
        many => format!(", {many} warnings"),
    };
    let errors = match problems.errors() {
        1 => "1 error".to_owned(),
        many => format!("{many} errors"),
    };
    format!("{problems}\n\n{errors}{warnings}\n")
}

fn to_json(result: &Result<Loaded, Problems>, print: bool) -> Value {
    let list = |problems: &[Problem]| problems.iter().map(problem_json).collect::<Vec<_>>();
    match result {
        Ok(loaded) => {
            let mut answer = json!({"ok": true, "problems": list(&loaded.warnings)});
            if print {
                answer["effective"] = loaded.effective.iter().map(effective_json).collect();
            }
            answer
        }
        Err(problems) => json!({"ok": false, "problems": list(&problems.0)}),
    }
}

/// `{"severity":"error","key":"tls.key","what":"...","remedy":"...","set_by":{"file":"conclave.toml","line":4}}`
fn problem_json(problem: &Problem) -> Value {
    let set_by = match &problem.at {
        Some(At::File { file, line }) => json!({"file": file, "line": line}),
        Some(At::Environment(name)) => json!({"environment": name}),
        Some(At::Flag(name)) => json!({"flag": name}),
        None => Value::Null,
    };
    json!({
        "severity": problem.severity.as_str(),
        "key": problem.key,
        "what": problem.what,
        "remedy": problem.remedy,
        "set_by": set_by,
    })
}

fn effective_json(row: &Effective) -> Value {
    json!({"key": row.key, "value": row.value_shown, "set_by": row.source})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(variables: &[(&str, &str)]) -> Sources {
        let environment = variables
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect();
        Sources {
            environment,
            ..Sources::default()
        }
    }

    #[test]
    fn a_bad_configuration_is_counted_and_exits_with_64() {
        let sources = sources(&[
            ("CONCLAVE_HEARTBEAT__INTERVAL", "5h"),
            ("CONCLAVE_SESSION__ENABLED", "true"),
        ]);
        assert_eq!(run(&sources, false, true), EXIT_BAD_CONFIG);
        let problems = load_with(&sources, |_| Vec::new()).expect_err("no certificate");
        let text = failure(&problems);
        assert!(
            text.starts_with("1. error: heartbeat.interval: 5h is out of range, 1s to 10m\n     set by"),
            "{text}"
        );
        assert!(text.ends_with("3 errors, 1 warning\n"), "{text}");
        let answer = to_json(&Err(problems), true);
        assert_eq!(answer["ok"], false);
        assert_eq!(
            answer["problems"][0]["set_by"]["environment"],
            "CONCLAVE_HEARTBEAT__INTERVAL"
        );
    }

    #[test]
    fn a_good_one_says_ok_and_prints_a_table_when_asked() {
        let effective = vec![Effective {
            key: "a.b".to_owned(),
            value_shown: "1".to_owned(),
            source: "default".to_owned(),
        }];
        let config = crate::config::default_config();
        let mut loaded = Loaded {
            config,
            effective,
            warnings: Vec::new(),
        };
        assert_eq!(success(&loaded, false), "ok\n");
        assert!(success(&loaded, true).contains("a.b"));
        loaded.warnings.push(Problem::warning("a.b", "odd", "look"));
        assert_eq!(
            success(&loaded, false),
            "warning: a.b: odd\n  help: look\n\nok, with 1 warning\n"
        );
        let answer = to_json(&Ok(loaded), true);
        assert_eq!(answer["effective"][0]["key"], "a.b");
        assert_eq!(answer["problems"][0]["severity"], "warning");
    }
}
