//! `conclave check-config`: what `serve` would say about a configuration, without serving.

use serde_json::{Value, json};

use super::args::CheckConfig;
use crate::config::{
    At, Config, Effective, Facts, Loaded, Problem, Problems, Severity, Sources, effective_table, load_with,
};

/// Exit code for a configuration that `serve` would refuse (`EX_USAGE` of sysexits.h).
pub const EXIT_BAD_CONFIG: u8 = 64;

/// The place that is judged: this machine, stopped as the caller says.
pub fn facts(args: &CheckConfig) -> Facts {
    Facts {
        grace_period: args.grace_period,
        ..Facts::here()
    }
}

/// Checks what `sources` say and prints the answer: problems on stderr, everything else on stdout. With
/// `print` every effective value and where it came from, with `json` one object. `extra` are the checks of other
/// parts that `serve` makes. Returns the exit code.
pub fn run(sources: &Sources, args: &CheckConfig, extra: impl FnOnce(&Config) -> Vec<Problem>) -> u8 {
    let result = load_with(sources, extra);
    let is_good = match &result {
        Ok(loaded) => !args.strict || count(&loaded.warnings, Severity::Warning) == 0,
        Err(_) => false,
    };
    let code = if is_good { 0 } else { EXIT_BAD_CONFIG };
    if args.json {
        println!("{}", to_json(&result, args.print));
        return code;
    }
    match result {
        Ok(loaded) => print!("{}", success(&loaded, args.print, is_good)),
        Err(problems) => eprint!("{}", failure(&problems)),
    }
    code
}

fn count(problems: &[Problem], severity: Severity) -> usize {
    problems.iter().filter(|problem| problem.severity == severity).count()
}

/// `1 warning`, `2 warnings`.
fn counted(count: usize, word: &str) -> Option<String> {
    match count {
        0 => None,
        1 => Some(format!("1 {word}")),
        many => Some(format!("{many} {word}s")),
    }
}

fn success(loaded: &Loaded, print: bool, is_good: bool) -> String {
    let mut text = String::new();
    if print {
        text.push_str(&format!("{}\n", effective_table(&loaded.effective)));
    }
    if !loaded.warnings.is_empty() {
        text.push_str(&format!("{}\n\n", Problems(loaded.warnings.clone())));
    }
    let found = [
        counted(count(&loaded.warnings, Severity::Warning), "warning"),
        counted(count(&loaded.warnings, Severity::Note), "note"),
    ];
    let found: Vec<String> = found.into_iter().flatten().collect();
    let verdict = if is_good { "ok" } else { "not ok with --strict" };
    match found.as_slice() {
        [] => text.push_str(&format!("{verdict}\n")),
        found => text.push_str(&format!("{verdict}, with {}\n", found.join(" and "))),
    }
    text
}

fn failure(problems: &Problems) -> String {
    let counts = [
        counted(problems.errors(), "error"),
        counted(count(&problems.0, Severity::Warning), "warning"),
        counted(count(&problems.0, Severity::Note), "note"),
    ];
    let counts: Vec<String> = counts.into_iter().flatten().collect();
    format!("{problems}\n\n{}\n", counts.join(", "))
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
        let args = CheckConfig {
            config: None,
            print: false,
            json: true,
            strict: false,
            grace_period: None,
        };
        assert_eq!(run(&sources, &args, |_| Vec::new()), EXIT_BAD_CONFIG);
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
        assert_eq!(success(&loaded, false, true), "ok\n");
        assert!(success(&loaded, true, true).contains("a.b"));
        loaded.warnings.push(Problem::warning("a.b", "odd", "look"));
        assert_eq!(
            success(&loaded, false, true),
            "warning: a.b: odd\n  help: look\n\nok, with 1 warning\n"
        );
        loaded.warnings.push(Problem::note("a.c", "known", ""));
        let text = success(&loaded, false, false);
        assert!(
            text.ends_with("not ok with --strict, with 1 warning and 1 note\n"),
            "{text}"
        );
        let answer = to_json(&Ok(loaded), true);
        assert_eq!(answer["effective"][0]["key"], "a.b");
        assert_eq!(answer["problems"][0]["severity"], "warning");
    }
}
