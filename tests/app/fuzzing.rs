//! What the API document promises, tried by schemathesis: it makes requests of the document, good and bad ones, and compares
//! every answer with it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use crate::app::api::is_wait;
use crate::app::database::each;
use crate::app::person::Person;
use crate::app::tools;
use crate::lines::Line;
use crate::server::Server;
use crate::supervision_load::is_long;

#[test]
fn no_request_made_of_the_document_gets_an_answer_outside_it() {
    let program = tools::find("schemathesis", &["target/tools/schemathesis/bin"]);
    let Some(program) = program else { return };
    each(|database| {
        // What fails on purpose is left out; the rest never fails.
        let server = database.setup().env("SIMULATION", "off").start();
        let reader = Person::of_conduit(&server, "reader");
        let blogger = Person::of_blog(&server, "blogger");
        try_all(&program, &server, &blogger, &["--include-path-regex", BLOG]);
        try_all(&program, &server, &reader, &["--exclude-path-regex", &format!("{BLOG}|{USER}")]);
        // Last: a new password ends the token.
        try_all(&program, &server, &reader, &["--include-path-regex", USER]);
        let lines = server.lines();
        let is_error = |line: &&Line| {
            line.get("level") == "error" && !line.get("status").parse().is_ok_and(is_wait)
        };
        let errors: Vec<_> = lines.iter().filter(is_error).collect();
        assert!(errors.is_empty(), "{errors:?}");
        // A busy machine keeps some waiting; an operation that never has another answer is at fault itself.
        let requests = lines.iter().filter(|line| line.get("msg") == "request");
        let (waits, others): (Vec<_>, Vec<_>) =
            requests.partition(|line| line.get("status").parse().is_ok_and(is_wait));
        let operation =
            |line: &&Line| (line.get("method").to_owned(), line.get("route").to_owned());
        let answered: BTreeSet<_> = others.iter().map(operation).collect();
        let unanswered: Vec<_> =
            waits.iter().filter(|line| !answered.contains(&operation(line))).collect();
        assert!(unanswered.is_empty(), "{unanswered:?}");
    });
}

/// As this person, all paths or some.
fn try_all(program: &Path, server: &Server, person: &Person, paths: &[&str]) {
    let folder = tempfile::TempDir::new().unwrap();
    let examples = if is_long() { "500" } else { "50" };
    std::fs::write(folder.path().join("schemathesis.toml"), CONFIG).unwrap();
    let mut run = Command::new(program);
    run.args(["run", "--seed", "1", "--max-examples", examples, "--phases", "fuzzing"]);
    // One thread: with more the seed decides nothing, and CPython 3.11 may fail to parse in two at once.
    run.args(["--workers", "1"]);
    run.args(["--generation-database", "none", "--no-color"]).args(paths);
    // The status, the type and the shape of each answer are in the document, and it is no 5xx that CONFIG has not.
    run.args(["--checks", CHECKS, "-H", &format!("Authorization: Bearer {}", person.token())]);
    run.arg(format!("http://{}/openapi.json", server.address())).current_dir(folder.path());
    let output = run.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{}", narrow(&text), narrow(&errors));
    assert!(text.contains(" passed"), "{text}");
}

/// Its report without the ends of lines that nobody reads: a traceback may have whole files in them.
fn narrow(report: &str) -> String {
    report.lines().map(|line| line.chars().take(300).chain(['\n']).collect::<String>()).collect()
}

const BLOG: &str = "^/(users|posts|vote|login)";
const USER: &str = "^/api/user$";
/// To be asked to come back is in the document, and no mistake: [`is_wait`].
const CONFIG: &str = r#"
[checks.not_a_server_error]
expected-statuses = ["2xx", "3xx", "4xx", 502, 503]
"#;
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance";
